"""A TSP-RCNN and a Faster R-CNN of 16 channels, and inputs for region heads."""

import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig

from align_detr import model_zoo
from align_detr.modeling.backbone import build_small_resnet
from align_detr.projects.faster_rcnn import FasterRCNN
from align_detr.projects.tsp.rcnn.detector import TSPRCNN
from align_detr.projects.tsp.rcnn.predictors import AgnosticBoxes
from align_detr.projects.tsp.rcnn.roi_heads import TSPROIHeads

LOSSES = {"loss_obj", "loss_box_l1", "loss_box_giou", "loss_rpn_cls", "loss_rpn_loc"}


def tiny(name: str = "tsp_rcnn_r50_36ep", *, norm: str = "BN") -> DictConfig:
    """The config's model with 16 channels, 3 classes and no dropout."""
    model = model_zoo.get_config(f"TSP/{name}").model
    model.backbone.bottom_up = L(build_small_resnet)(
        channels=[8, 12, 16, 24], blocks=[1, 1, 1, 1], out_features=["res2", "res3", "res4", "res5"], norm=norm
    )
    model.backbone.out_channels = 16
    model.backbone.top_block.norm = model.proposal_generator.head.norm = norm
    model.proposal_generator.post_nms_topk = (60, 60)
    model.roi_heads.num_classes = 3
    (stage,) = model.roi_heads.stages
    stage.transformer.embed_dim = stage.classifier.embed_dim = stage.boxes.embed_dim = 32
    stage.transformer.encoder.layer.update(embed_dim=32, num_heads=2, ffn_dim=32, dropout=0.0)
    stage.transformer.encoder.update(num_layers=2)
    stage.transformer.encoder.norm.normalized_shape = 32
    return model


def refining() -> DictConfig:
    """The same with two stages."""
    model = tiny()
    (stage,) = model.roi_heads.stages
    stages = [stage.copy(), stage.copy()]
    for k, weights in enumerate([(10, 10, 5, 5), (20, 20, 10, 10)]):
        stages[k].boxes = L(AgnosticBoxes)(embed_dim=32, weights=weights)
    stages[1].iou_threshold = 0.7
    model.roi_heads.stages = stages
    return model


def build(node: DictConfig) -> TSPRCNN:
    torch.manual_seed(0)
    return instantiate(node)


def tiny_faster_rcnn() -> FasterRCNN:
    """The baseline of 16 channels and 3 classes, which reports detections of any score."""
    model = model_zoo.get_config("FasterRCNN/faster_rcnn_digits").model
    model.backbone.bottom_up.update(channels=[8, 12, 16, 24], blocks=[1, 1, 1, 1])
    model.backbone.out_channels = 16
    model.roi_heads.num_classes = 3
    model.roi_heads.box_head.fc_dims = [32, 32]
    model.roi_heads.box_predictor.test_score_thresh = 0.0
    torch.manual_seed(0)
    return instantiate(model)


def train_once(model: TSPRCNN, batch: list[dict]) -> dict[str, torch.Tensor]:
    """Losses after a backward pass; every trained parameter has a finite gradient."""
    model.zero_grad(set_to_none=True)
    with EventStorage():
        losses = model.train()(batch)
    sum(losses.values()).backward()
    for name, p in model.named_parameters():
        if p.requires_grad:
            assert p.grad is not None and torch.isfinite(p.grad).all(), name
    for name, value in losses.items():
        assert value.dtype == torch.float32 and value.dim() == 0 and torch.isfinite(value), name
    return losses


def features(batch: int = 2, channels: int = 16) -> dict[str, torch.Tensor]:
    """Maps of a padded batch of 96 x 128 pixels."""
    return {f"p{k}": torch.randn(batch, channels, 96 // 2**k, 128 // 2**k) for k in (2, 3, 4, 5)}


def random_proposals(*counts: int, size: tuple[int, int] = (96, 128)) -> list[Instances]:
    corners = [torch.rand(n, 2, 2).sort(dim=1).values.flatten(1) for n in counts]
    scale = torch.tensor([size[1], size[0]] * 2)
    return [Instances(size, proposal_boxes=Boxes(x * scale + torch.tensor([0, 0, 2, 2]))) for x in corners]


def heads_of(node: DictConfig) -> TSPROIHeads:
    """Region heads whose predictions differ from proposal to proposal."""
    heads = build(node).roi_heads.eval()
    for stage in heads.stages:
        torch.nn.init.normal_(stage.classifier.linear.weight)
        torch.nn.init.normal_(stage.boxes.mlp.layers[-1].weight, std=0.1)
    return heads
