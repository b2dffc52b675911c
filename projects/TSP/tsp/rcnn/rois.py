"""The values that travel through TSP-RCNN's stages: padded proposals, outputs and prediction sets."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from align_detr.layers.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from align_detr.projects.tsp.rcnn.sampling import BACKGROUND
from align_detr.structures import Match, Predictions, Targets

LARGEST_LOG_SCALE = math.log(1000 / 16)  # detectron2's bound on the logarithm of a size ratio


@dataclass(frozen=True)
class BoxCoder:
    """Boxes as deltas to proposals (R-CNN): shifts of the centre in units of the side, and logarithms of size ratios.

    Both are multiplied by `weights`. Boxes are xyxy; their deltas are the same in pixels and in normalised coordinates.
    """

    weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)

    def encode(self, boxes: Tensor, proposals: Tensor) -> Tensor:
        """Return the deltas (..., 4) from proposals (..., 4) to boxes (..., 4), whose sides must be above 0."""
        (centre, size), (origin, unit) = (xyxy_to_cxcywh(x).split(2, dim=-1) for x in (boxes, proposals))
        return torch.cat([(centre - origin) / unit, (size / unit).log()], dim=-1) * boxes.new_tensor(self.weights)

    def decode(self, deltas: Tensor, proposals: Tensor) -> Tensor:
        """Return the boxes (..., 4) of deltas and proposals that broadcast; a size ratio is at most 1000 / 16."""
        shift, scale = (deltas / deltas.new_tensor(self.weights)).split(2, dim=-1)
        origin, unit = xyxy_to_cxcywh(proposals).split(2, dim=-1)
        sides = scale.clamp(max=LARGEST_LOG_SCALE).exp() * unit
        return cxcywh_to_xyxy(torch.cat([origin + shift * unit, sides], dim=-1))


@dataclass
class RoIs:
    """The proposals of a batch, padded to the largest number of an image (at least 1).

    boxes (B, Q, 4) float32 absolute xyxy, zeros at and beyond `counts[b]`; `image_sizes[b]` (height, width) in pixels;
    owner (B, Q) int64, the index of the object that a proposal belongs to, -1 for background and padding, or None in
    evaluation.
    """

    boxes: Tensor
    counts: list[int]
    image_sizes: list[tuple[int, int]]
    owner: Tensor | None = None

    @classmethod
    def from_instances(cls, instances: Sequence[Instances]) -> RoIs:
        """Pad `proposal_boxes` and, if given, `gt_idxs`."""
        boxes = [x.proposal_boxes.tensor.float() for x in instances]
        has_owners = len(instances) > 0 and instances[0].has("gt_idxs")
        return cls(
            boxes=pad_images(boxes),
            counts=[len(x) for x in boxes],
            image_sizes=[x.image_size for x in instances],
            owner=pad_images([x.gt_idxs for x in instances], BACKGROUND) if has_owners else None,
        )

    @property
    def valid(self) -> Tensor:
        """(B, Q) bool, False in padding."""
        counts = torch.tensor(self.counts).to(self.boxes.device, non_blocking=True)
        return torch.arange(self.boxes.shape[1], device=self.boxes.device) < counts[:, None]

    @property
    def is_padded(self) -> bool:
        """Whether an image has fewer than Q proposals."""
        return any(n < self.boxes.shape[1] for n in self.counts)

    @property
    def sides(self) -> Tensor:
        """Width, height, width, height of each image, (B, 1, 4)."""
        sides = [(width, height, width, height) for height, width in self.image_sizes]
        return self.boxes.new_tensor(sides).view(-1, 1, 4)

    def of_images(self) -> list[Boxes]:
        """Return the boxes of each image, without padding."""
        return [Boxes(x[:n]) for x, n in zip(self.boxes, self.counts, strict=True)]

    def padded(self, values: Tensor) -> Tensor:
        """Return the values of all proposals, concatenated, (N, ...), as (B, Q, ...) with zeros in padding."""
        return pad_images(values.split(self.counts))

    def pool(self, pooler: nn.Module, maps: Sequence[Tensor]) -> Tensor:
        """Return the regions (N, C', r, r) of all images, concatenated, that a `ROIPooler` takes from maps."""
        pooled: Tensor = pooler(list(maps), self.of_images())
        return pooled

    def refined(self, boxes: Tensor) -> RoIs:
        """Return the proposals with other boxes (B, Q, 4), clipped to their images, and without owners.

        A box outside its image becomes empty. It overlaps no object, so it is background, and no delta is computed from
        its sides; the official code stops there.
        """
        return dataclasses.replace(self, boxes=torch.minimum(boxes.clamp(min=0), self.sides), owner=None)


@dataclass
class RoIOutputs:
    """The outputs of one stage.

    hidden (B, Q, C), the encoder's output; logits (B, Q, K or K + 1) float32; deltas (B, Q, D, 4) float32 for D box
    classes (K, or 1 for class-agnostic boxes); `coder` decodes the deltas.
    """

    hidden: Tensor
    logits: Tensor
    deltas: Tensor
    coder: BoxCoder

    def boxes(self, rois: RoIs) -> Tensor:
        """Return the predicted boxes, (B, Q, D, 4) absolute xyxy, not clipped."""
        return self.coder.decode(self.deltas, rois.boxes[:, :, None])


@dataclass(kw_only=True)
class RoIPredictions(Predictions):
    """A prediction set (R = 1) of proposals, each with the box that it predicts for the class of its owner.

    A proposal may be matched to its owner only. Background proposals have the box of the first class, which no loss
    reads. deltas (1, B, Q, 4) are those of the same class; proposals (B, Q, 4) normalised xyxy.
    """

    valid: Tensor
    allowed: Tensor
    deltas: Tensor
    proposals: Tensor
    coder: BoxCoder

    @classmethod
    def of(cls, outputs: RoIOutputs, rois: RoIs, targets: Targets, *, softmax: bool, stage: int = 0) -> RoIPredictions:
        """Return the set of stage number `stage` in training; raise ValueError for proposals without owners."""
        owner = rois.owner
        if owner is None:
            raise ValueError("The proposals have no owners: take them from a ProposalSampler.")
        classes = targets.labels.gather(1, owner.clamp(min=0)).clamp(max=outputs.deltas.shape[2] - 1)
        deltas = outputs.deltas.gather(2, classes[:, :, None, None].expand(-1, -1, 1, 4))[:, :, 0]
        proposals = rois.boxes / rois.sides
        return cls(
            logits=outputs.logits[None],
            boxes=xyxy_to_cxcywh(outputs.coder.decode(deltas, proposals))[None],
            softmax=softmax,
            valid=rois.valid,
            allowed=owner[..., None] == torch.arange(targets.labels.shape[1], device=owner.device),
            deltas=deltas[None],
            proposals=proposals,
            coder=outputs.coder,
            origin=f"roi_heads.stages.{stage}.classifier",
        )

    def match_owners(self) -> Match:
        """Pair every foreground proposal with its owner."""
        image, query, target = self.allowed.nonzero().unbind(-1)
        return Match(torch.zeros_like(image), image, query, target)


def pad_images(values: Sequence[Tensor], fill: float = 0.0) -> Tensor:
    """Pad the values of each image, (n_b, ...), to (B, Q, ...), where Q is the largest n_b, at least 1."""
    longest = max([1, *map(len, values)])
    return torch.stack([F.pad(x, [0, 0] * (x.dim() - 1) + [0, longest - len(x)], value=fill) for x in values])
