"""Detections of several views of one image, merged: each view sees the objects once, and so does the result."""

from collections.abc import Sequence

import torch
from detectron2.layers import batched_nms
from detectron2.structures import Boxes, Instances, pairwise_iou
from torch import Tensor

from align_detr.errors import ConfigError

MIN_IOU = 0.55  # from which on two views' boxes are of one object: the threshold of weighted boxes fusion


def merge_views(views: Sequence[Instances], *, min_iou: float = MIN_IOU) -> Instances:
    """Return the detections of several views of one image, all in its pixels, as one set; nothing is suppressed.

    The detections of each view are paired one-to-one with those found so far: of the same class, in the order of their
    scores, with the highest IoU of at least `min_iou`. So two detections of one view never become one, and a detector
    without NMS stays one. A merged box is the mean of its views' boxes, weighted by their scores; the score is the mean
    over all views, where a view that did not find the object counts 0. As many are returned as the view with most has.
    Where several boxes compete for one, the pairs depend on the order of the views.

    These are the box and score of weighted boxes fusion (Solovyev et al. 2019, with T members in T models), which
    however pairs detections of one model as well. Raise ConfigError for detections with masks, which have no mean.
    """
    if any(view.has("pred_masks") for view in views):
        raise ConfigError(
            "Several views of an image are merged into boxes without masks, but this detector finds masks: keep those "
            "of the best view by NMS (nms=0.7, for example), or leave out flip and sides."
        )
    boxes = views[0].pred_boxes.tensor.new_zeros((0, 4), dtype=torch.float64)  # sums of score x box
    scores, classes = boxes.new_zeros(0), views[0].pred_classes.new_zeros(0)
    for view in views:
        ordered = view[view.scores.argsort(descending=True, stable=True)]
        found, weight, label = ordered.pred_boxes.tensor.double(), ordered.scores.double(), ordered.pred_classes
        centre = boxes / scores.clamp(min=torch.finfo(torch.float64).tiny)[:, None]
        partner = _pair(found, label, centre, classes, min_iou)
        known, new = partner >= 0, partner < 0
        boxes = boxes.index_add(0, partner[known], (weight[:, None] * found)[known])
        scores = scores.index_add(0, partner[known], weight[known])
        boxes = torch.cat([boxes, (weight[:, None] * found)[new]])
        scores, classes = torch.cat([scores, weight[new]]), torch.cat([classes, label[new]])
    best = scores.argsort(descending=True, stable=True)[: max(map(len, views))]
    merged = boxes[best] / scores[best].clamp(min=torch.finfo(torch.float64).tiny)[:, None]
    return Instances(
        views[0].image_size,
        pred_boxes=Boxes(merged.float()),
        scores=(scores[best] / len(views)).to(views[0].scores.dtype),
        pred_classes=classes[best],
    )


def _pair(boxes: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor, min_iou: float) -> Tensor:
    """Return for each box, in their order, the index of the free other of its class with the highest IoU, or -1."""
    partner = torch.full((len(boxes),), -1, dtype=torch.int64)
    if not len(others):
        return partner
    iou = pairwise_iou(Boxes(boxes), Boxes(others)).masked_fill(labels[:, None] != other_labels, -1.0).cpu()
    for k in (iou.amax(1) >= min_iou).nonzero()[:, 0].tolist():
        value, index = iou[k].max(0)
        if value >= min_iou:
            partner[k] = index
            iou[:, index] = -1.0
    return partner


def merge_with_nms(views: Sequence[Instances], iou: float) -> Instances:
    """Return the detections of several views after detectron2's NMS per class: the best of those that overlap more."""
    together = Instances.cat(list(views))
    boxes = together.pred_boxes.tensor
    kept = batched_nms(boxes, together.scores, together.pred_classes, iou)
    return together[kept[: max(map(len, views))]]
