"""Detections of points on numbers a reader can redo."""

import torch
from detectron2.structures import Boxes, Instances
from detectron2.structures import pairwise_iou as detectron2_iou
from torch import Tensor
from torch.testing import assert_close

from align_detr.projects.tsp.fcos.head import PointPredictions
from align_detr.projects.tsp.fcos.postprocess import PointPostprocess
from align_detr.projects.tsp.fcos.selection import FoIs


def detections(
    postprocess: PointPostprocess,
    scores: Tensor,
    boxes: Tensor,
    levels: Tensor | None = None,
    valid: Tensor | None = None,
) -> Instances:
    """Return the detections of one image with probabilities (Q, K) and boxes (Q, 4)."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    fois = FoIs(
        index=torch.arange(len(boxes))[None],
        valid=None,
        locations=centre[None],
        strides=torch.ones(1, len(boxes)),
        levels=torch.zeros(1, len(boxes), dtype=torch.int64) if levels is None else levels[None],
        image_sizes=[(100, 100)],
    )
    sides = torch.cat([centre - boxes[:, :2], boxes[:, 2:] - centre], dim=1)
    preds = PointPredictions(
        logits=scores.logit()[None, None],
        boxes=boxes[None, None] / 100,
        valid=None if valid is None else valid[None],
        distances=sides[None, None],
        centerness=torch.zeros(1, 1, len(boxes)),
        fois=fois,
    )
    return postprocess(preds)[0]


def test_detections_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 8.0], [50.0, 50.0, 60.0, 60.0]])
    scores = torch.tensor([[0.64, 0.04], [0.36, 0.01], [0.25, 0.16]])
    found = detections(PointPostprocess(), scores, boxes)  # the first two overlap by 0.8: one of each class remains
    assert_close(found.scores, torch.tensor([0.8, 0.5, 0.4, 0.2]))
    assert found.pred_classes.tolist() == [0, 0, 1, 1]
    assert_close(found.pred_boxes.tensor, boxes[[0, 2, 2, 0]])
    everything = detections(PointPostprocess(nms_threshold=None), scores, boxes)
    assert_close(everything.scores, scores.flatten().sqrt().sort(descending=True).values)
    assert len(detections(PointPostprocess(num_detections=2), scores, boxes)) == 2
    one_a_level = PointPostprocess(candidates_per_level=1)
    assert_close(detections(one_a_level, scores, boxes, torch.tensor([0, 0, 1])).scores, torch.tensor([0.8, 0.5]))


def test_points_of_the_padding_are_no_detections() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 8.0], [50.0, 50.0, 60.0, 60.0]])
    scores = torch.tensor([[0.64], [0.36], [0.25]])
    found = detections(PointPostprocess(), scores, boxes, valid=torch.tensor([False, True, True]))
    assert_close(found.scores, torch.tensor([0.6, 0.5]))
    assert_close(found.pred_boxes.tensor, boxes[1:])


def test_detections_of_many_points_overlap_by_class_at_most_as_much_as_allowed() -> None:
    torch.manual_seed(0)
    corners = torch.rand(200, 2, 2).sort(dim=1).values * 100
    found = detections(PointPostprocess(num_detections=1000), torch.rand(200, 2), corners.flatten(1))
    overlap = detectron2_iou(found.pred_boxes, Boxes(found.pred_boxes.tensor)).fill_diagonal_(0)
    alike = found.pred_classes[:, None] == found.pred_classes
    assert overlap[alike].max() <= 0.6 < overlap.max()
