"""Small detectors of every kind: shrunk configs of the model zoo with what their tests want otherwise."""

import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from omegaconf import DictConfig

from align_detr.modeling.meta_arch import DETR, DINO, DeformableDETR, DNDeformableDETR, GroupDINO
from align_detr.modeling.queries import ContrastiveDenoisingQueries, DenoisingQueries, DenoisingSource
from support.shrink import SMALL_MAPS, config, small_model
from support.subject import randomise

DIM, CLASSES, QUERIES, GROUPS = 16, 3, 8, 3
SIZES = dict(embed_dim=DIM, normalized_shape=DIM, num_features=DIM // 2, ffn_dim=24, dropout=0.0, num_points=2)
DEFORMABLE = {
    "plain": "deformable_detr/deformable_detr_r50_50ep.py",
    "refine": "deformable_detr/deformable_detr_r50_refine_50ep.py",
    "two_stage": "deformable_detr/deformable_detr_r50_two_stage_50ep.py",
    "dab": "dab_deformable_detr/dab_deformable_detr_r50_50ep.py",
    "dab_two_stage": "dab_deformable_detr/dab_deformable_detr_r50_two_stage_50ep.py",
    "hybrid": "h_deformable_detr/h_deformable_detr_r50_12ep.py",
    "dino": "dino/dino_r50_4scale_12ep.py",
}
SINGLE_SCALE = {
    "conditional": "conditional_detr/conditional_detr_r50_50ep.py",
    "dab": "dab_detr/dab_detr_r50_50ep.py",
    "patterns": "dab_detr/dab_detr_r50_3patterns_50ep.py",
    "group": "group_detr/group_detr_r50_50ep.py",
    "aligned": "align_detr/align_dab_detr_r50_50ep.py",
}


def build(node: DictConfig) -> torch.nn.Module:
    """Build a model, the same one each time, none of whose tensors hides what comes before."""
    torch.manual_seed(0)
    model = instantiate(node)
    randomise(model)
    return model


def tiny_detr(num_queries: int = 6, num_classes: int = CLASSES) -> DETR:
    """Build a DETR with batch norm."""
    node = small_model("detr/detr_r50_500ep.py", num_queries=num_queries, num_classes=num_classes, **SIZES)
    node.backbone.norm = "BN"
    torch.manual_seed(0)
    return instantiate(node)


def single_scale_detector(kind: str, mask_padding: bool = True) -> DETR:
    """Build one of SINGLE_SCALE."""
    node = small_model(SINGLE_SCALE[kind], num_queries=QUERIES, groups=GROUPS, **SIZES)
    node.decoder.layer.mask_padding = node.decoder.first_layer.mask_padding = mask_padding
    return build(node)


def deformable_node(kind: str, num_queries: int = QUERIES, num_classes: int = CLASSES) -> DictConfig:
    """Return the model of one of DEFORMABLE, which reports ten detections."""
    sizes = dict(num_queries=num_queries, num_one_to_one=num_queries // 2, num_classes=num_classes, copies=3, **SIZES)
    node = small_model(DEFORMABLE[kind], **sizes)
    node.postprocess.num_detections = 10
    return node


def deformable_detector(kind: str, *, num_queries: int = QUERIES, num_classes: int = CLASSES) -> DeformableDETR:
    """Build one of DEFORMABLE; DINO without its denoising."""
    node = deformable_node(kind, num_queries, num_classes)
    if kind == "dino":
        node._target_, node.queries = DeformableDETR, node.queries.main
    return build(node)


def tiny_dino(kind: type[DINO] = DINO, *, align: bool = False, num_queries: int = QUERIES) -> DINO:
    """Build a DINO or Group-DINO; `align` gives it Align-DETR's criterion with k = 3."""
    node = deformable_node("dino", num_queries)
    if kind is GroupDINO:
        group = small_model("group_detr/group_dino_r50_4scale_12ep.py", num_queries=num_queries, groups=GROUPS, **SIZES)
        node._target_, node.queries = group._target_, group.queries
    if align:
        node.criterion = small_model("align_detr/align_dino_r50_4scale_12ep.py", **SIZES).criterion
    node.queries.dn_number = 6
    return build(node)


def tiny_dn_deformable() -> DNDeformableDETR:
    """Build a DN-Deformable-DETR with two denoising groups."""
    sizes = dict(num_queries=QUERIES, groups=2, **SIZES)
    return build(small_model("dn_deformable_detr/dn_deformable_detr_r50_50ep.py", **sizes))


def tiny_denoising_detr(kind: type[DenoisingSource], align: bool = False) -> DETR:
    """Build a DN-DETR with four learned boxes and denoising queries of this kind."""
    name = "align_detr/align_dn_detr_r50_50ep.py" if align else "dn_detr/dn_detr_r50_50ep.py"
    node = small_model(name, num_queries=4, **SIZES)
    if kind is ContrastiveDenoisingQueries:
        given = node.queries
        node.queries = L(kind)(main=given.main, num_classes=CLASSES, embed_dim=DIM)
    assert node.queries._target_ is kind or kind is not DenoisingQueries
    return build(node)


def tiny_tsp_fcos(num_queries: int = 20, num_classes: int = CLASSES, **selection: object) -> torch.nn.Module:
    """Build a TSP-FCOS for strides 8 to 32 with the published losses."""
    node = small_model("TSP/tsp_fcos_digits.py", num_queries=num_queries, num_classes=num_classes, **SIZES)
    published = config("TSP/tsp_fcos_r50_36ep.py").model.copy()
    node.criterion, node.assigner, node.selection = published.criterion, published.assigner, published.selection
    node.selection.update(num_queries=num_queries, keep_padding=False, **selection)
    node.assigner.sizes = [24, 48]
    node.backbone.bottom_up.update(channels=list(SMALL_MAPS.values()), blocks=[1] * 4, norm="FrozenBN")
    del node.points.init_std
    torch.manual_seed(0)
    return instantiate(node)
