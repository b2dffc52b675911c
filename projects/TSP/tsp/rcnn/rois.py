"""What travels through TSP-RCNN's box stages: padded proposals, and what is predicted of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from detectron2.structures import Boxes, Instances
from torch import Tensor

from align_detr.errors import ConfigError
from align_detr.layers.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from align_detr.projects.tsp.rcnn.sampling import BACKGROUND
from align_detr.structures import Match, Predictions, Targets

LARGEST_LOG_SCALE = math.log(1000 / 16)  # detectron2's bound of a predicted change of size


@dataclass(frozen=True)
class BoxCoder:
    """Boxes as deltas to proposals (R-CNN): shifts of the centre in units of the side, logarithms of size ratios,
    multiplied by `weights`. Boxes are xyxy; the deltas are the same in pixels and in normalised coordinates.
    """

    weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)

    def encode(self, boxes: Tensor, proposals: Tensor) -> Tensor:
        """Deltas (..., 4) that lead from the proposals to the boxes, (..., 4) each, with sides above 0."""
        (centre, size), (origin, unit) = (xyxy_to_cxcywh(x).split(2, dim=-1) for x in (boxes, proposals))
        return torch.cat([(centre - origin) / unit, (size / unit).log()], dim=-1) * boxes.new_tensor(self.weights)

    def decode(self, deltas: Tensor, proposals: Tensor) -> Tensor:
        """Boxes (..., 4) of deltas and proposals that broadcast; a factor of size is at most 1000 / 16."""
        shift, scale = (deltas / deltas.new_tensor(self.weights)).split(2, dim=-1)
        origin, unit = xyxy_to_cxcywh(proposals).split(2, dim=-1)
        sides = scale.clamp(max=LARGEST_LOG_SCALE).exp() * unit
        return cxcywh_to_xyxy(torch.cat([origin + shift * unit, sides], dim=-1))


@dataclass
class RoIs:
    """The proposals of a batch, padded to the longest image (at least one).

    boxes (B, Q, 4) float32 absolute xyxy, zeros at and beyond `counts[b]`; `image_sizes[b]` (height, width) in pixels;
    `owner` (B, Q) int64 is the object that each may be matched to, -1 for none and in padding, or None in evaluation.
    """

    boxes: Tensor
    counts: list[int]
    image_sizes: list[tuple[int, int]]
    owner: Tensor | None = None

    @classmethod
    def from_instances(cls, instances: Sequence[Instances]) -> RoIs:
        """Pads `proposal_boxes` and, where there are any, `gt_idxs`."""
        boxes = [x.proposal_boxes.tensor.float() for x in instances]
        owned = len(instances) > 0 and instances[0].has("gt_idxs")
        return cls(
            boxes=pad_images(boxes),
            counts=[len(x) for x in boxes],
            image_sizes=[x.image_size for x in instances],
            owner=pad_images([x.gt_idxs for x in instances], BACKGROUND) if owned else None,
        )

    @property
    def valid(self) -> Tensor:
        """(B, Q), False in padding."""
        counts = torch.tensor(self.counts).to(self.boxes.device, non_blocking=True)
        return torch.arange(self.boxes.shape[1], device=self.boxes.device) < counts[:, None]

    @property
    def is_padded(self) -> bool:
        """Whether an image has fewer proposals than there are places."""
        return any(n < self.boxes.shape[1] for n in self.counts)

    @property
    def sides(self) -> Tensor:
        """(B, 1, 4): width, height, width, height of each image."""
        sides = [(width, height, width, height) for height, width in self.image_sizes]
        return self.boxes.new_tensor(sides).view(-1, 1, 4)

    def of_images(self) -> list[Boxes]:
        """The boxes of each image, without padding."""
        return [Boxes(x[:n]) for x, n in zip(self.boxes, self.counts, strict=True)]

    def refined(self, boxes: Tensor) -> RoIs:
        """The same places with boxes (B, Q, 4) cut off at the borders of their images, and no owners yet.

        A box outside its image becomes empty. It then overlaps no object, so that it is background and no delta is
        ever computed from its sides; the official code stops there.
        """
        return dataclasses.replace(self, boxes=torch.minimum(boxes.clamp(min=0), self.sides), owner=None)


@dataclass
class RoIOutputs:
    """What one stage says: `hidden` (B, Q, C) the encoder's output, `logits` (B, Q, K or K + 1) and `deltas`
    (B, Q, D, 4) for D box classes (K, or 1 for class-agnostic boxes), both float32; `coder` reads the deltas.
    """

    hidden: Tensor
    logits: Tensor
    deltas: Tensor
    coder: BoxCoder

    def boxes(self, rois: RoIs) -> Tensor:
        """(B, Q, D, 4) absolute xyxy, not clipped."""
        return self.coder.decode(self.deltas, rois.boxes[:, :, None])


@dataclass(kw_only=True)
class RoIPredictions(Predictions):
    """A prediction set (R = 1) of proposals, each with the box it predicts for the class of its own object: all others
    are forbidden to it. Background proposals have the box of the first class, which is never read.

    deltas (1, B, Q, 4) are those of the same class, `proposals` (B, Q, 4) normalised xyxy.
    """

    valid: Tensor
    allowed: Tensor
    deltas: Tensor
    proposals: Tensor
    coder: BoxCoder

    @classmethod
    def of(cls, outputs: RoIOutputs, rois: RoIs, targets: Targets, *, softmax: bool) -> RoIPredictions:
        """The set of one stage in training. Raises ValueError for proposals without owners."""
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
        )

    def own_match(self) -> Match:
        """Every foreground proposal with its own object."""
        image, query, target = self.allowed.nonzero().unbind(-1)
        return Match(torch.zeros_like(image), image, query, target)


def require_rois(preds: Predictions) -> RoIPredictions:
    """`preds` for a loss that reads proposals. Raises ConfigError for a set of another detector."""
    if not isinstance(preds, RoIPredictions):
        raise ConfigError(
            "A loss of TSP-RCNN reads deltas of proposals, but the predictions have none: use it in "
            "model.roi_heads.box_criterion of a TSP-RCNN."
        )
    return preds


def pad_images(values: Sequence[Tensor], fill: float = 0.0) -> Tensor:
    """(n_b, ...) of each image -> (B, Q, ...), Q the largest n_b, at least 1."""
    longest = max([1, *map(len, values)])
    return torch.stack([F.pad(x, [0, 0] * (x.dim() - 1) + [0, longest - len(x)], value=fill) for x in values])
