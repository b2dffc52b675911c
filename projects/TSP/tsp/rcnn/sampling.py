"""Sampling of TSP-RCNN's training proposals, and the object that each belongs to."""

import math
from collections.abc import Sequence

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from align_detr.layers.boxes import cxcywh_to_xyxy, pairwise_iou, xyxy_to_cxcywh
from align_detr.projects.tsp.checks import check_range_of_shares

BACKGROUND = -1  # owner of a proposal that belongs to no object


def assign_objects(boxes: Tensor, objects: Tensor, iou_threshold: float) -> Tensor:
    """Return the index of the object of largest IoU with each proposal, or -1 where the IoU is below `iou_threshold`.

    boxes (n, 4) and objects (g, 4), xyxy in the same unit -> (n,) int64. As in the official code, only the best object
    counts, the first on ties, and the threshold is included; the paper reads as any object with IoU > 0.5.
    """
    if len(objects) == 0:
        return torch.full((len(boxes),), BACKGROUND, device=boxes.device)
    best, owner = pairwise_iou(boxes, objects).max(dim=1)
    return torch.where(best >= iou_threshold, owner, BACKGROUND)


def jitter(objects: Tensor, noise: Tensor) -> Tensor:
    """Shift boxes (g, 4) xyxy by up to 10 % of their sides and scale them by 0.8 to 1.25.

    noise (g, 4) in [0, 1): shift of x, y, factor of width, height.
    """
    centre, size = xyxy_to_cxcywh(objects).split(2, dim=-1)
    shifted = centre + (noise[:, :2] - 0.5) * 0.2 * size
    return cxcywh_to_xyxy(torch.cat([shifted, size * 0.8 ** (2 * noise[:, 2:] - 1)], dim=-1))


class ProposalSampler:
    """Labelling, sampling and random drop of the proposals of each image (TSP-RCNN, official code).

    A proposal is foreground if its best IoU reaches `iou_threshold`; an image without foreground gets its objects,
    jittered (see `jitter`), as further proposals. At most `positive_fraction` of `batch_size_per_image` proposals are
    foreground; background fills the rest. Of these n proposals floor(n f) are kept at random, f uniform in
    `keep_range`. The default follows the official code, which keeps 70 to 100 %; (0.3, 0.3) is the other reading of the
    paper, which drops 70 %. All draws come from torch's global generators.
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
        self.keep_range = check_range_of_shares(keep_range, "model.roi_heads.sampler.keep_range")

    @torch.no_grad()
    def __call__(self, proposals: Sequence[Instances], objects: Sequence[Instances]) -> list[Instances]:
        """Return the sampled `proposal_boxes` of each image, with the index of their object, or -1, as `gt_idxs`.

        `proposal_boxes` and the objects' `gt_boxes` are absolute xyxy.
        """
        boxes = [x.proposal_boxes.tensor for x in proposals]
        truth = [x.gt_boxes.tensor for x in objects]
        owners = [assign_objects(b, t, self.iou_threshold) for b, t in zip(boxes, truth, strict=True)]
        on_host = torch.cat(owners).cpu().split([len(x) for x in owners])  # one copy for all images
        return [self._sample(*each) for each in zip(proposals, boxes, truth, owners, on_host, strict=True)]

    def _sample(
        self, proposals: Instances, boxes: Tensor, objects: Tensor, owner: Tensor, on_host: Tensor
    ) -> Instances:
        """Sample the proposals of an image; `on_host` is the same as `owner`, which lies on the device."""
        if not (on_host != BACKGROUND).any() and len(objects):
            boxes = torch.cat([boxes, jitter(objects, self.draw_noise(objects))])
            owner = assign_objects(boxes, objects, self.iou_threshold)
            on_host = owner.cpu()
        foreground, background = (mask.nonzero()[:, 0] for mask in (on_host != BACKGROUND, on_host == BACKGROUND))
        index = self.draw_order(*(x.to(boxes.device, non_blocking=True) for x in (foreground, background)))
        index = index[self.draw_kept(len(index), index.device)]
        return Instances(proposals.image_size, proposal_boxes=Boxes(boxes[index]), gt_idxs=owner[index])

    def draw_noise(self, objects: Tensor) -> Tensor:
        """Draw uniform numbers in [0, 1), in the shape of `objects` (g, 4)."""
        return torch.rand_like(objects)

    def draw_order(self, foreground: Tensor, background: Tensor) -> Tensor:
        """Draw the indices of the sampled proposals: foreground first, each part in random order."""
        chosen = _shuffle(foreground)[: int(self.positive_fraction * self.batch_size_per_image)]
        return torch.cat([chosen, _shuffle(background)[: self.batch_size_per_image - len(chosen)]])

    def draw_kept(self, count: int, device: torch.device) -> Tensor:
        """Draw which of `count` sampled proposals are kept, in random order."""
        return torch.randperm(count, device=device)[: self.num_kept(count, float(torch.rand(())))]

    def num_kept(self, count: int, uniform: float) -> int:
        """Return how many of `count` proposals are kept; `uniform` in [0, 1) is 0 at the upper end of the range."""
        low, high = self.keep_range
        return math.floor(count * (high - (high - low) * uniform))


def _shuffle(index: Tensor) -> Tensor:
    return index[torch.randperm(len(index), device=index.device)]
