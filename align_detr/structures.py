"""The values that travel through every set-prediction detector here.

Shape letters, used in every docstring of the library: **B** images, **Q** queries, **K** classes, **T** padded targets
(at least 1), **R** rows = decoder layers x query groups, **M** matches, **C** channels, **S** tokens of all levels,
**L** levels, **H** heads. Boxes are normalised cxcywh in [0, 1] inside the model and absolute xyxy in detectron2's
`Instances`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from detectron2.structures import Instances
from torch import Tensor

from align_detr.checks import check_annotations
from align_detr.layers.boxes import xyxy_to_cxcywh

# Names of the prediction sets that the library itself makes.
MAIN, PROPOSED, DENOISED, ONE_TO_MANY = "main", "enc", "dn", "o2m"

# (height, width) of B images or of the parts of a map that they cover: numbers, or in exported graphs a tensor (B, 2)
Sizes = Sequence[tuple[int, int]] | Tensor


@dataclass(frozen=True)
class StepPart:
    """The step that a batch is one of `parts` equal parts of (gradient accumulation), in place of one large batch.

    `other_counts` are the numbers of objects of the images in the other parts, on this process. Losses of a part are
    divided by the mean over the parts of what they are divided by, and the step takes the mean over the parts: this is
    the loss of the large batch, just as the mean over processes is.
    """

    parts: int = 1
    other_counts: tuple[int, ...] = ()

    def mean(self, of_this_part: float, of_image: Callable[[int], float] = float) -> float:
        """Return the mean over the parts of a sum over images, of which `of_image` maps the objects of an image to its
        term.
        """
        return (of_this_part + sum(map(of_image, self.other_counts))) / self.parts


@dataclass
class Targets:
    """The ground truth of a batch, padded to the largest number of objects of an image (at least 1).

    labels (B, T) int64 and boxes (B, T, 4) float32 normalised cxcywh; entries at and beyond `counts[b]` are padding.
    `counts` are Python integers, so that nothing has to ask the device for the number of objects. `instances` are the
    originals, for heads that need more than boxes. `left_out` are the images that take no part in this step. With
    `restartable`, the caller computes the step again if `SkippedImages` is raised. `step` says what else belongs to the
    step, if gradients are accumulated.
    """

    labels: Tensor
    boxes: Tensor
    counts: list[int]
    instances: list[Instances] = dataclasses.field(default_factory=list)
    names: list[str] = dataclasses.field(default_factory=list)
    left_out: tuple[int, ...] = ()
    restartable: bool = False
    step: StepPart = StepPart()

    def name_of(self, image: int) -> str:
        """Return what an error calls image number `image` of the batch: its file if that is known."""
        return self.names[image] if self.names else f"number {image} of the batch"

    def without_images(self, images: Collection[int]) -> Targets:
        """Return the same batch, in which `images` (indices into it) have no objects and are left out."""
        return dataclasses.replace(
            self,
            counts=[0 if b in images else n for b, n in enumerate(self.counts)],
            instances=[x[:0] if b in images else x for b, x in enumerate(self.instances)],
            left_out=tuple(sorted({*self.left_out, *images})),
        )

    @classmethod
    def from_instances(
        cls,
        instances: Sequence[Instances],
        *,
        num_classes: int,
        device: torch.device | str,
        names: Sequence[str] | None = None,
    ) -> Targets:
        """Pad and normalise detectron2 annotations, and move them to `device` in one copy per tensor.

        `instances[b]` has `gt_boxes` (absolute xyxy in an image of `image_size`) and `gt_classes`; `names[b]` is what
        an error calls the image. Raise DatasetError for a class outside [0, num_classes) or a box that is not finite or
        inverted, if the annotations are on the host (on a device the check would synchronise).
        """
        counts = [len(x) for x in instances]
        longest = max([1, *counts])
        source = instances[0].gt_classes.device
        labels = torch.zeros(len(counts), longest, dtype=torch.int64, device=source)
        boxes = torch.full((len(counts), longest, 4), 0.5, device=source)  # padding is a harmless box in the image
        for b, x in enumerate(instances):
            if counts[b]:
                if source.type == "cpu":
                    check_annotations(x, names[b] if names else f"number {b} of the batch", num_classes)
                height, width = x.image_size
                scale = boxes.new_tensor([width, height, width, height])
                labels[b, : counts[b]] = x.gt_classes
                boxes[b, : counts[b]] = xyxy_to_cxcywh(x.gt_boxes.tensor.float() / scale)
        labels, boxes = labels.to(device, non_blocking=True), boxes.to(device, non_blocking=True)
        return cls(labels=labels, boxes=boxes, counts=counts, instances=list(instances), names=list(names or []))


class SkippedImages(Exception):
    """Raised by the criterion, if `Targets.restartable`, to ask the detector to recompute the step without `images`."""

    def __init__(self, images: Collection[int]) -> None:
        super().__init__(images)
        self.images = images

    def __str__(self) -> str:
        return f"Images {sorted(self.images)} of the batch are to be left out."


@dataclass
class Match:
    """Matched pairs of a query, in a row and an image, and a target: four (M,) int64 tensors, and `weight` (M,) float32
    or None for equal weights. `skipped` are the images of the batch that take no part in this step (see
    `HungarianMatcher`) and have no pairs.
    """

    row: Tensor
    image: Tensor
    query: Tensor
    target: Tensor
    weight: Tensor | None = None
    skipped: tuple[int, ...] = ()

    @classmethod
    def empty(cls, device: torch.device | str) -> Match:
        """Return a match without pairs, as a denoising set without queries has."""
        none = torch.zeros(0, dtype=torch.int64, device=device)
        return cls(none, none, none, none)

    def __len__(self) -> int:
        return self.row.shape[0]

    def at(self, values: Tensor) -> Tensor:
        """Return the matched queries' entries (M, ...) of `values` (R, B, Q, ...)."""
        return values[self.row, self.image, self.query]

    def of(self, values: Tensor) -> Tensor:
        """Return the matched targets' entries (M, ...) of `values` (B, T, ...)."""
        return values[self.image, self.target]

    def repeat_rows(self, num_rows: int) -> Match:
        """Repeat the pairs of this match, whose row is 0, in each of `num_rows` rows: known matches are the same in
        every decoder layer.
        """
        row = torch.arange(num_rows, device=self.row.device).repeat_interleave(len(self))
        image, query, target = (x.repeat(num_rows) for x in (self.image, self.query, self.target))
        weight = None if self.weight is None else self.weight.repeat(num_rows)
        return Match(row, image, query, target, weight, self.skipped)


@dataclass
class Predictions:
    """Named prediction set, all its rows stacked; the last rows belong to the last decoder layer.

    logits (R, B, Q, K), or (R, B, Q, K + 1) with "no object" last if `softmax`; boxes (R, B, Q, 4) normalised cxcywh;
    `iou` (R, B, Q) logits of an IoU branch; `groups` query groups that share a layer (R = layers x groups); `valid`
    (B, Q) False where a query is padding; `allowed` (B, Q, T) False where a query may not be matched to a target;
    `match` is given if it is known beforehand; `class_agnostic` sets know one class, "object"; `scale` multiplies the
    number of targets that normalises the losses; `copies` is the number of queries matched to each
    target, or None for the matcher's; `assigner`, if there is one, matches the set in place of the matcher's costs and
    solver; `origin` is the part of the model that an error about the logits names.
    """

    logits: Tensor
    boxes: Tensor
    iou: Tensor | None = None
    softmax: bool = False
    groups: int = 1
    valid: Tensor | None = None
    allowed: Tensor | None = None
    match: Match | None = None
    class_agnostic: bool = False
    scale: float = 1.0
    copies: int | None = None
    origin: str = "head"
    assigner: Assigner | None = None

    def float(self) -> Predictions:
        """Return the same set with logits, boxes and IoU in float32, whatever autocast made of them."""
        iou = None if self.iou is None else self.iou.float()
        return dataclasses.replace(self, logits=self.logits.float(), boxes=self.boxes.float(), iou=iou)

    def own_targets(self, targets: Targets) -> Targets:
        """Return the targets as this set sees them: a class-agnostic set has label 0 everywhere, in a copy."""
        if not self.class_agnostic:
            return targets
        return dataclasses.replace(targets, labels=torch.zeros_like(targets.labels))

    def without_images(self, images: Sequence[int]) -> Predictions:
        """Return the same set with the queries of `images` (indices into the batch) hidden by `valid`.

        Constants replace their values, so that a NaN among them reaches neither a loss nor a gradient.
        """
        kept = torch.ones(self.logits.shape[1], dtype=torch.bool)
        kept[list(images)] = False
        kept = kept.to(self.logits.device, non_blocking=True)[:, None]
        valid = kept.expand(self.logits.shape[1:3]) if self.valid is None else self.valid & kept
        return dataclasses.replace(
            self,
            logits=torch.where(kept[..., None], self.logits, 0.0),
            boxes=torch.where(kept[..., None], self.boxes, 0.5),
            iou=None if self.iou is None else torch.where(kept, self.iou, 0.0),
            valid=valid,
        )


class Assigner(Protocol):
    """The interface of what matches a set by a rule of its own: see `Predictions.assigner`."""

    @property
    def costs(self) -> Sequence[Any]:
        """Terms of the cost, `Cost`s, from which it assigns."""

    def assign_all(self, cost: np.ndarray, counts: Sequence[int], skipped: Collection[int] = ()) -> np.ndarray:
        """Return the pairs in every row and image but those `skipped`, (4, M): row, image, query and target.

        `cost` (R, N, Q), on the host, holds the N targets of all images, `counts` of each, concatenated.
        """


class computed_once(property):  # a decorator, as `property` is
    """Property of a dataclass that is computed at its first use.

    `functools.cached_property` holds a lock until Python 3.11, which `torch.compile` cannot follow.
    """

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Return the value, computed once per instance; for the class, the property itself, as `help` asks."""
        compute = self.fget
        if instance is None or compute is None:
            return self
        name = compute.__name__
        if name not in instance.__dict__:
            instance.__dict__[name] = compute(instance)
        return instance.__dict__[name]


def fields_of(instance: Any) -> dict[str, Any]:
    """Return the fields of a dataclass's instance by name, without its `computed_once` values, for a subclass's."""
    return {field.name: getattr(instance, field.name) for field in dataclasses.fields(instance)}


@dataclass
class Memory:
    """Image features as a sequence of tokens, with what the attention layers need to know of their positions.

    tokens, position (B, S, C), all levels concatenated, row by row; `padding` (B, S) True where a token lies outside
    its image, or None if no token does; `shapes[l]` = (height, width) of level l; `valid_sizes[l][b]` =
    (height, width) of the part of level l that image b covers, numbers or for all levels tensors (B, 2).
    """

    tokens: Tensor
    position: Tensor
    padding: Tensor | None
    shapes: list[tuple[int, int]]
    valid_sizes: Sequence[Sizes]

    def with_tokens(self, tokens: Tensor) -> Memory:
        """Return the same positions with other contents."""
        return dataclasses.replace(self, tokens=tokens)

    @computed_once
    def tokens_and_position(self) -> Tensor:
        """Tokens + position (B, S, C), computed once for all decoder layers."""
        return self.tokens + self.position

    @computed_once
    def extents(self) -> Tensor:
        """Part of each level that each image covers, as (height, width) in tokens: (L, B, 2) float32."""
        if isinstance(self.valid_sizes[0], Tensor):
            return torch.stack([torch.as_tensor(sizes) for sizes in self.valid_sizes]).float()
        # one copy to the device for all levels
        return torch.tensor(self.valid_sizes, dtype=torch.float32).to(self.tokens.device, non_blocking=True)

    @computed_once
    def valid_ratios(self) -> Tensor:
        """Part of each level that each image covers, as (width, height) in (0, 1]: (B, L, 2) float32."""
        if isinstance(self.valid_sizes[0], Tensor):
            parts = [
                [extent[:, i] / shape[i] for i in (1, 0)]
                for extent, shape in zip(self.extents, self.shapes, strict=True)
            ]
            return torch.stack([torch.stack(part, dim=-1) for part in parts], dim=1)
        ratios = [
            [(w / columns, h / rows) for h, w in sizes]
            for (rows, columns), sizes in zip(self.shapes, self.valid_sizes, strict=True)
        ]
        return torch.tensor(ratios, dtype=torch.float32).transpose(0, 1).to(self.tokens.device, non_blocking=True)


@dataclass
class Proposals:
    """Proposals of a two-stage detector's encoder, best first: content (B, Q, C), reference (B, Q, 4) normalised cxcywh
    without gradient, and the prediction set `enc` that trains them. `valid` (B, Q) is False where an image has fewer
    tokens than proposals, or None.
    """

    content: Tensor
    reference: Tensor
    predictions: Predictions
    valid: Tensor | None = None


@dataclass
class QueryPart:
    """Queries that are predicted, matched and named together.

    content (B, Q, C); position (B, Q, C), or None if the decoder computes it from the reference; reference (B, Q, 2)
    points or (B, Q, 4) boxes, normalised, or None. The Q queries are `groups` blocks of equal length that see neither
    each other nor any other part, except `main` with `sees_main`. `match` (its row is 0) is given if it is known
    beforehand; a part without it is matched group by group. `valid` (B, Q) is False for queries that are padding, the
    same ones in each group. `scale` and `copies` as in `Predictions`.
    """

    name: str
    content: Tensor
    position: Tensor | None = None
    reference: Tensor | None = None
    groups: int = 1
    sees_main: bool = False
    match: Match | None = None
    valid: Tensor | None = None
    scale: float = 1.0
    copies: int | None = None

    def as_set(self, predictions: Predictions) -> Predictions:
        """Return the set of this part from the predictions of its queries, (R, B, Q, ...) with one row per layer."""
        predictions = dataclasses.replace(predictions, valid=self.valid, scale=self.scale, copies=self.copies)
        if self.match is not None:
            return dataclasses.replace(predictions, match=self.match.repeat_rows(len(predictions.boxes)))
        if self.groups == 1:
            return predictions
        return dataclasses.replace(
            predictions,
            logits=_groups_to_rows(predictions.logits, self.groups),
            boxes=_groups_to_rows(predictions.boxes, self.groups),
            iou=None if predictions.iou is None else _groups_to_rows(predictions.iou, self.groups),
            valid=None if self.valid is None else self.valid[:, : self.valid.shape[1] // self.groups],
            groups=self.groups,
        )


def _groups_to_rows(x: Tensor, groups: int) -> Tensor:
    """Reshape (L, B, G * Q, ...) to (L * G, B, Q, ...)."""
    return x.unflatten(2, (groups, -1)).movedim(2, 1).flatten(0, 1)


@dataclass
class QueryPlace:
    """Where the queries of all parts are, for one decoder layer.

    position (B, Q, C), added in attention, or None; sine (B, Q, C), the encoded reference that conditional
    cross-attention compares with the positions of tokens, or None; reference (B, Q, 2 or 4) or None; blocked (Q, Q) or
    (B, 1, Q, Q) True where a query may not attend to another, or None; it may also be numbers (B, H, Q, Q) that are
    added to the logits of self-attention, minus infinity where a query may not attend. If `runs` > 1, the queries are
    `runs` blocks of equal length that do not attend to each other; `blocked` is then None.
    """

    position: Tensor | None = None
    sine: Tensor | None = None
    reference: Tensor | None = None
    blocked: Tensor | None = None
    runs: int = 1
