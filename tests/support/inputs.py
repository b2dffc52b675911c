"""Images, predictions and targets that several tests share."""

import torch
from detectron2.structures import BitMasks, Boxes, Instances
from torch import Tensor

from align_detr.modeling.criterion import SetCriterion
from align_detr.modeling.losses import GIoULoss, L1Loss, SoftmaxCrossEntropy
from align_detr.modeling.matcher import GIoUCost, HungarianMatcher, L1Cost, SoftmaxCost
from align_detr.modeling.matching.pairs import image_and_index
from align_detr.structures import Predictions, Targets


def softmax_criterion() -> SetCriterion:
    """DETR's criterion."""
    return SetCriterion(
        matcher=HungarianMatcher(costs=[SoftmaxCost(weight=1.0), L1Cost(weight=5.0), GIoUCost(weight=2.0)]),
        losses=[SoftmaxCrossEntropy(), L1Loss(), GIoULoss()],
    )


def image_input(height: int, width: int, num_objects: int, num_classes: int = 3) -> dict:
    """A noise image with random boxes, as the mapper would give it, and as masks the pixels in them."""
    corners = torch.rand(num_objects, 2, 2).sort(dim=1).values * torch.tensor([width, height])
    instances = Instances(
        (height, width), gt_boxes=Boxes(corners.flatten(1)), gt_classes=torch.randint(num_classes, (num_objects,))
    )
    instances.gt_masks = box_masks(instances)
    image = torch.randint(256, (3, height, width), dtype=torch.uint8)
    return {"image": image, "height": height, "width": width, "instances": instances}


def box_masks(instances: Instances) -> BitMasks:
    """The pixels whose centre lies in each of the boxes."""
    height, width = instances.image_size
    left, top, right, bottom = instances.gt_boxes.tensor.T[..., None]
    columns, rows = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    inside = ((left <= columns) & (columns < right))[:, None] & ((top <= rows) & (rows < bottom))[..., None]
    return BitMasks(inside)


def random_set(
    rows: int, counts: list[int], queries: int, num_classes: int = 3, softmax: bool = True
) -> tuple[Predictions, Targets]:
    """Random predictions with gradients, K + 1 logits also where they are sigmoid ones, and random targets with
    `counts[b]` objects.
    """
    images, longest = len(counts), max([1, *counts])
    preds = Predictions(
        logits=torch.randn(rows, images, queries, num_classes + 1, requires_grad=True),
        boxes=(torch.rand(rows, images, queries, 4) * 0.5 + 0.2).requires_grad_(),
        softmax=softmax,
    )
    targets = Targets(
        labels=torch.randint(num_classes, (images, longest)),
        boxes=torch.rand(images, longest, 4) * 0.5 + 0.2,
        counts=counts,
    )
    return preds, targets


def padded_costs(matcher: HungarianMatcher, preds: Predictions, targets: Targets) -> Tensor:
    """What training runs, `own_costs`, as (R, B, Q, T); 0 at the padding of targets."""
    image, index = image_and_index(targets.counts)
    costs = torch.zeros(*preds.boxes.shape[:3], targets.labels.shape[1])
    costs[:, image, :, index] = matcher.own_costs(preds, targets).transpose(0, 1)
    return costs
