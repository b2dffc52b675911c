"""What the tests of TSP-FCOS share. Tolerance of the official numbers: 1e-5 relative to the largest value of an array,
at least 1.
"""

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from align_detr.layers.boxes import xyxy_to_cxcywh
from align_detr.layers.positional import SinePositionEncoding
from align_detr.modeling.criterion import SetCriterion
from align_detr.modeling.encoder import Encoder, PreNormEncoderLayer
from align_detr.modeling.matcher import HungarianMatcher
from align_detr.projects.tsp.checkpoint import convert_official_tsp_fcos
from align_detr.projects.tsp.fcos.assign import Assignment, PointAssigner
from align_detr.projects.tsp.fcos.detector import TSPFCOS
from align_detr.projects.tsp.fcos.head import PointHead, PointPredictions
from align_detr.projects.tsp.fcos.losses import (
    CenternessLoss,
    DenseFocalLoss,
    PointCriterion,
    PointGIoULoss,
    RestrictedFocalLoss,
)
from align_detr.projects.tsp.fcos.matching import CenternessClassCost, PointGIoUCost, PointOwnerMatcher
from align_detr.projects.tsp.fcos.points import Points, PointTowers
from align_detr.projects.tsp.fcos.postprocess import PointPostprocess
from align_detr.projects.tsp.fcos.selection import FoIEncoding, FoIs, FoISelection
from align_detr.structures import Targets
from support.golden import Fixture

NAMES = {
    "loss_fcos_cls": "loss_class",
    "loss_fcos_loc": "loss_giou",
    "loss_fcos_ctr": "loss_centerness",
    "loss_fcos_local_cls": "loss_class_dense",
}


def check_losses(losses: dict[str, Tensor], expected: dict[str, Tensor], tag: str) -> None:
    assert losses.keys() == set(NAMES.values())
    for official, ours in NAMES.items():
        close(losses[ours], expected[f"{tag}{official}"], ours)


def close(found: Tensor, expected: Tensor, label: str = "") -> None:
    """Asserts equality within 1e-5 of max(1, largest expected value)."""
    assert found.shape == expected.shape, label
    tolerance = 1e-5 * max(1.0, expected.abs().max().item() if expected.numel() else 0.0)
    torch.testing.assert_close(
        found.detach().to(expected.dtype), expected, rtol=0, atol=tolerance, msg=lambda m: label + m
    )


def matcher() -> HungarianMatcher:
    return HungarianMatcher(costs=[CenternessClassCost(weight=1.0), PointGIoUCost(weight=2.0)])


def criterion() -> PointCriterion:
    return PointCriterion(
        matched=SetCriterion(matcher=matcher(), losses=[RestrictedFocalLoss()]),
        foreground=SetCriterion(matcher=PointOwnerMatcher(), losses=[PointGIoULoss(), CenternessLoss()]),
        dense=DenseFocalLoss(),
    )


def detector(fixture: Fixture) -> TSPFCOS:
    """The model of a fixture's sizes and weights, with the official treatment of padding; no backbone."""
    size = fixture.meta["config"]
    d = size["d_model"]
    layer = PreNormEncoderLayer(embed_dim=d, num_heads=size["nhead"], ffn_dim=size["dim_feedforward"], dropout=0.0)
    model = TSPFCOS(
        backbone=nn.Identity(),
        points=PointTowers(
            channels=size["channels"],
            num_convs=size["num_convs"],
            num_classes=size["num_classes"],
            position=SinePositionEncoding(num_features=d // 2),
        ),
        assigner=PointAssigner(),
        selection=FoISelection(num_queries=size["num_proposal"], keep_padding=True),
        encoding=FoIEncoding(in_channels=2 * size["channels"], embed_dim=d),
        encoder=Encoder(layer=layer, num_layers=size["num_layers"], norm=nn.LayerNorm(d)),
        head=PointHead(num_classes=size["num_classes"], embed_dim=d),
        criterion=criterion(),
        postprocess=PointPostprocess(),
    )
    model.load_state_dict(convert_official_tsp_fcos(fixture.weights))
    return model


def features(fixture: Fixture) -> dict[str, Tensor]:
    return {f"p{i}": fixture.input[f"p{i}"] for i in range(3, 8)}


def sizes(fixture: Fixture) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    return [tuple(x) for x in fixture.input["image_sizes"].tolist()], tuple(fixture.input["padded_size"].tolist())


def targets_of(fixture: Fixture) -> Targets:
    counts = fixture.input["gt_counts"].tolist()
    instances = [
        Instances(size, gt_boxes=Boxes(boxes), gt_classes=classes)
        for size, boxes, classes in zip(
            sizes(fixture)[0],
            fixture.input["gt_boxes"].split(counts),
            fixture.input["gt_classes"].split(counts),
            strict=True,
        )
    ]
    return Targets.from_instances(instances, num_classes=fixture.meta["config"]["num_classes"], device="cpu")


def bare_points(fixture: Fixture, logits: Tensor | None = None) -> Points:
    """The points of a batch without features."""
    num_classes = fixture.meta["config"]["num_classes"]
    towers = PointTowers(
        channels=32, num_convs=0, num_classes=num_classes, position=SinePositionEncoding(num_features=2)
    )
    image_sizes, (height, width) = sizes(fixture)
    maps, shape = {}, (height // 8, width // 8)
    for i in range(3, 8):
        maps[f"p{i}"] = torch.zeros(len(image_sizes), 32, *shape)
        shape = tuple(-(-n // 2) for n in shape)
    with torch.no_grad():
        points = towers(maps, image_sizes, (height, width))
    points.logits = points.logits if logits is None else logits
    return points


def per_image(index: Tensor, counts: list[int]) -> Tensor:
    """Object indices that run over the batch (B, ...) -> per image; -1 stays."""
    starts = torch.tensor([0, *counts]).cumsum(0)[:-1].view(-1, *[1] * (index.dim() - 1))
    return torch.where(index < 0, index, index - starts)


def recorded_set(fixture: Fixture, points: Points, assignment: Assignment) -> PointPredictions:
    """The recorded outputs of selected points as a prediction set whose inputs take gradients."""
    logits, distances, center = (fixture.input[k].clone().requires_grad_() for k in ("logits", "reg", "ctrness"))
    fois = FoIs.at(points, fixture.input["poi_idx"])
    preds = PointPredictions(
        logits=logits[None], boxes=distances[None], distances=distances[None], centerness=center[None], fois=fois
    )
    sizes = torch.tensor([[width, height] * 2 for height, width in fois.image_sizes])
    preds.boxes = xyxy_to_cxcywh(preds.pixel_boxes() / sizes[:, None])[None]
    return preds.assigned(assignment)
