"""A TSP-RCNN and a Faster R-CNN of 16 channels, and inputs for region heads."""

import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig

from align_detr.projects.faster_rcnn import FasterRCNN
from align_detr.projects.tsp.rcnn.detector import TSPRCNN
from align_detr.projects.tsp.rcnn.predictors import AgnosticBoxes
from align_detr.projects.tsp.rcnn.roi_heads import TSPROIHeads
from support.shrink import SMALL_MAPS, small_model

LOSSES = {"loss_obj", "loss_box_l1", "loss_box_giou", "loss_rpn_cls", "loss_rpn_loc"}


def tiny(name: str = "tsp_rcnn_r50_36ep", *, norm: str = "BN") -> DictConfig:
    """Return the config's small model with 60 proposals, 16 channels of maps and no dropout."""
    model = small_model(f"TSP/{name}.py", num_queries=60, out_channels=16, dropout=0.0)
    model.backbone.bottom_up.norm = model.backbone.top_block.norm = model.proposal_generator.head.norm = norm
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
    """Build the baseline with 100 proposals and 16 channels of maps."""
    model = small_model("FasterRCNN/faster_rcnn_digits.py", num_queries=100, out_channels=16)
    model.backbone.bottom_up.update(channels=list(SMALL_MAPS.values()), blocks=[1] * 4)
    return build(model)


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
