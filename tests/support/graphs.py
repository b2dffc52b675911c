"""Which configs of the model zoo predict by graphs of their own."""

from omegaconf import DictConfig, ListConfig

from align_detr import model_zoo
from support.shrink import as_json, small_model

# one_per_graph(), which takes half a minute: tests/export/test_graph.py compares them
GRAPHS = [
    "AnchorDETR/align_anchor_detr_r50_50ep.py",
    "AnchorDETR/anchor_detr_r50_mha_50ep.py",
    "DETRSegmentation/align_dino_r50_4scale_segmentation_12ep.py",
    "DETRSegmentation/detr_r101_panoptic_25ep.py",
    "DETRSegmentation/detr_r50_panoptic_boxes_500ep.py",
    "DETRSegmentation/digits_panoptic.py",
    "FasterRCNN/faster_rcnn_digits.py",
    "FasterRCNN/faster_rcnn_r50_fpn_108ep.py",
    "FasterRCNN/faster_rcnn_r50_fpn_36ep.py",
    "SMCA/align_smca_r50_50ep.py",
    "SMCA/smca_multi_scale_r50_50ep.py",
    "TSP/align_tsp_fcos_r50_36ep.py",
    "TSP/align_tsp_rcnn_r50_36ep.py",
    "TSP/detr_digits_distilled.py",
    "TSP/tsp_fcos_coco_mini.py",
    "TSP/tsp_fcos_digits.py",
    "TSP/tsp_rcnn_coco_mini.py",
    "TSP/tsp_rcnn_digits.py",
    "TSP/tsp_rcnn_r101_36ep.py",
    "ablations/digits_align.py",
    "ablations/digits_dac.py",
    "ablations/digits_distinct.py",
    "ablations/digits_distinct_relation.py",
    "ablations/digits_relation.py",
    "ablations/dino_r50_dw_12ep.py",
    "ablations/dino_r50_iou_branch_12ep.py",
    "ablations/dino_r50_iou_branch_fused_12ep.py",
    "align_detr/align_conditional_detr_r50_50ep.py",
    "align_detr/align_dab_detr_r101_50ep.py",
    "align_detr/align_deformable_detr_r50_50ep.py",
    "align_detr/align_deformable_detr_r50_two_stage_50ep.py",
    "align_detr/align_dino_swin_large_384_4scale_12ep.py",
    "align_detr/align_dn_detr_r50_50ep.py",
    "align_detr/align_group_detr_r50_50ep.py",
    "align_detr/align_h_deformable_detr_r50_12ep.py",
    "conditional_detr/conditional_detr_r101_dc5_official.py",
    "dab_deformable_detr/dab_deformable_detr_r50_50ep.py",
    "dab_deformable_detr/dab_deformable_detr_r50_two_stage_50ep.py",
    "dab_detr/dab_detr_r50_3patterns_50ep.py",
    "dac_detr/align_dac_dino_r50_4scale_12ep.py",
    "ddq_detr/align_distinct_dino_r50_4scale_12ep.py",
    "deformable_detr/deformable_detr_r50_dc5_single_scale_50ep.py",
    "deformable_detr/deformable_detr_r50_refine_50ep.py",
    "dino/dino_convnext_tiny_384_4scale_12ep.py",
    "dino/dino_r50_4scale_official.py",
    "dino/dino_r50_5scale_12ep.py",
    "dino/dino_swin_large_384_5scale_12ep.py",
    "dino/dino_vit_base_4scale_12ep.py",
    "dn_deformable_detr/dn_deformable_detr_r50_12ep.py",
    "group_detr/group_dino_r50_4scale_12ep.py",
    "quickstart/bccd.py",
    "quickstart/bccd_align_dino.py",
    "quickstart/bccd_align_dino_efficientnet.py",
    "quickstart/demo.py",
    "quickstart/digits_align_dab_detr.py",
    "quickstart/digits_detr.py",
    "relation_detr/align_relation_dino_r50_4scale_12ep.py",
]
# parts and numbers that only training reads
OF_TRAINING = {
    "criterion",
    "teacher",
    "assigner",
    "routes",
    "freeze_at",
    "frozen_stages",
    "dropout",
    "drop_path",
    "dn_number",
    "max_queries",
    "label_noise",
    "box_noise",
}


def one_per_graph() -> list[str]:
    """Return the first config by name of each shrunk model that predicts in another way than those before it."""
    first: dict[str, str] = {}
    for name in model_zoo.names():
        node = small_model(name).copy()
        _drop(node)
        first.setdefault(as_json(node), name)
    return list(first.values())


def _drop(node: DictConfig | ListConfig) -> None:
    """Remove what only training reads."""
    for key in list(node.keys()) if isinstance(node, DictConfig) else range(len(node)):
        if key in OF_TRAINING:
            del node[key]
        elif isinstance(node._get_node(key), (DictConfig, ListConfig)):
            _drop(node[key])
