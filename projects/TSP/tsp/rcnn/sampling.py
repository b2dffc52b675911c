"""Which proposals are trained on, and to which object each belongs (TSP-RCNN)."""

import math
from collections.abc import Sequence

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from align_detr.errors import ConfigError
from align_detr.layers.boxes import cxcywh_to_xyxy, pairwise_iou, xyxy_to_cxcywh

BACKGROUND = -1  # owner of a proposal that belongs to no object


def assign_objects(boxes: Tensor, objects: Tensor, iou_threshold: float) -> Tensor:
    """The object of largest IoU of each proposal, where that reaches `iou_threshold`, else -1: boxes (n, 4) and objects
    (g, 4), xyxy in one unit -> (n,) int64.

    As in the official code, with the proposal's best object alone and ">="; the paper is read as any object with
    IoU > 0.5. Of equal objects the first counts.
    """
    if len(objects) == 0:
        return torch.full((len(boxes),), BACKGROUND, device=boxes.device)
    best, owner = pairwise_iou(boxes, objects).max(dim=1)
    return torch.where(best >= iou_threshold, owner, BACKGROUND)


def jitter(objects: Tensor, noise: Tensor) -> Tensor:
    """Boxes (g, 4) xyxy moved by up to 10 % of their sides and scaled by 0.8 to 1.25, as `noise` (g, 4) in [0, 1) says:
    shift of x, y, factor of width, height.
    """
    centre, size = xyxy_to_cxcywh(objects).split(2, dim=-1)
    shifted = centre + (noise[:, :2] - 0.5) * 0.2 * size
    return cxcywh_to_xyxy(torch.cat([shifted, size * 0.8 ** (2 * noise[:, 2:] - 1)], dim=-1))


class ProposalSampler:
    """Labels, samples and randomly drops the proposals of each image (TSP-RCNN, official code).

    A proposal is foreground where its best IoU reaches `iou_threshold`; an image without any gets its objects, jittered
    (see `jitter`), as proposals more. At most `positive_fraction` of `batch_size_per_image` proposals are foreground,
    the rest is filled with background. Of these n a random share is kept: floor(n f), f uniform in `keep_range`. The
    paper's text speaks of dropping 70 %, its code keeps 70 to 100 %, which is the default; (0.3, 0.3) is the other
    reading. All draws come from torch's global generators.
    """

    def __init__(
        self,
        *,
        iou_threshold: float = 0.5,
        batch_size_per_image: int = 700,
        positive_fraction: float = 0.25,
        keep_range: Sequence[float] = (0.7, 1.0),
    ) -> None:
        self.iou_threshold = iou_threshold
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.keep_range = tuple(keep_range)
        if len(self.keep_range) != 2 or not 0 < self.keep_range[0] <= self.keep_range[1] <= 1:
            raise ConfigError(f"sampler.keep_range is {list(keep_range)}: set two shares, 0 < lowest <= highest <= 1")

    @torch.no_grad()
    def __call__(self, proposals: Sequence[Instances], objects: Sequence[Instances]) -> list[Instances]:
        """`proposal_boxes` of each image and its `gt_boxes`, both absolute xyxy, -> the sampled `proposal_boxes` with
        `gt_idxs`, the index of the object that each belongs to, or -1.
        """
        return [self._sample(p, g.gt_boxes.tensor) for p, g in zip(proposals, objects, strict=True)]

    def _sample(self, proposals: Instances, objects: Tensor) -> Instances:
        boxes = proposals.proposal_boxes.tensor
        owner = assign_objects(boxes, objects, self.iou_threshold)
        foreground = (owner != BACKGROUND).nonzero()[:, 0]
        if len(foreground) == 0 and len(objects):
            boxes = torch.cat([boxes, jitter(objects, self.draw_noise(objects))])
            owner = assign_objects(boxes, objects, self.iou_threshold)
            foreground = (owner != BACKGROUND).nonzero()[:, 0]
        index = self.draw_order(foreground, (owner == BACKGROUND).nonzero()[:, 0])
        index = index[self.draw_kept(len(index), index.device)]
        return Instances(proposals.image_size, proposal_boxes=Boxes(boxes[index]), gt_idxs=owner[index])

    def draw_noise(self, objects: Tensor) -> Tensor:
        """Uniform numbers in [0, 1), in the shape of `objects` (g, 4)."""
        return torch.rand_like(objects)

    def draw_order(self, foreground: Tensor, background: Tensor) -> Tensor:
        """Indices of the sampled proposals, foreground first, each part in random order."""
        chosen = _shuffled(foreground)[: int(self.positive_fraction * self.batch_size_per_image)]
        return torch.cat([chosen, _shuffled(background)[: self.batch_size_per_image - len(chosen)]])

    def draw_kept(self, count: int, device: torch.device) -> Tensor:
        """Which of `count` sampled proposals are kept, in random order."""
        return torch.randperm(count, device=device)[: self.num_kept(count, float(torch.rand(())))]

    def num_kept(self, count: int, uniform: float) -> int:
        """How many of `count` are kept for a number in [0, 1): all of the range's upper end for 0."""
        low, high = self.keep_range
        return math.floor(count * (high - (high - low) * uniform))


def _shuffled(index: Tensor) -> Tensor:
    return index[torch.randperm(len(index), device=index.device)]
