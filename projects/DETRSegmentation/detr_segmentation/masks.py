"""From decoded queries to masks: the branch that makes them, and the prediction set that asks for them."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from align_detr.errors import ConfigError, DatasetError
from align_detr.modeling.head import ClassifyingHead, Head, RefiningHead
from align_detr.projects.detr_segmentation.attention import BoxAttention
from align_detr.projects.detr_segmentation.features import MaskFeatures, Size, cell_side
from align_detr.projects.detr_segmentation.head import MaskHead
from align_detr.structures import Match, Memory, Predictions, Targets, fields_of

QUERIES_AT_ONCE = 25  # in evaluation: their maps of the finest resolution take most of the memory


class MaskBranch(nn.Module):
    """DETR's mask branch (section 4.4): `attention` maps of each query over the encoded tokens of one level go through
    `head` together with the projected features of that level and finer backbone maps.

    `level` is the index of that level among the neck's, 0 for a neck of one level.
    """

    def __init__(self, *, attention: BoxAttention, head: MaskHead, level: int = 0) -> None:
        super().__init__()
        self.attention = attention
        self.head = head
        self.level = level

    def features(
        self,
        backbone: Mapping[str, Tensor],
        projected: Memory,
        encoded: Memory,
        image_sizes: Sequence[Size],
        padded_size: Size,
        strides: Sequence[int],
    ) -> MaskFeatures:
        """Collect the features of a batch: backbone maps by name, tokens before and behind the encoder. `strides` are
        those of the backbone's maps in pixels.

        Raise ConfigError for a level or a backbone map that is not there, and as `cell_side`.
        """
        if not 0 <= self.level < len(projected.shapes):
            raise ConfigError(f"model.masks.level is {self.level}, but model.neck has {len(projected.shapes)} levels.")
        missing = [name for name in self.head.in_features if name not in backbone]
        if missing:
            raise ConfigError(
                f"model.masks.head.in_features names '{missing[0]}', but the backbone gives {', '.join(backbone)}: add "
                "it to model.backbone.out_features."
            )
        height, width = projected.shapes[self.level]
        stride = cell_side((height, width), padded_size, strides)
        start = sum(h * w for h, w in projected.shapes[: self.level])
        part = slice(start, start + height * width)
        encoded_map, projected_map = (
            tokens[:, part].transpose(1, 2).unflatten(-1, (height, width))
            for tokens in (encoded.tokens, projected.tokens)
        )
        padding = None if projected.padding is None else projected.padding[:, part]
        maps = [backbone[name] for name in self.head.in_features]
        return MaskFeatures(encoded_map, projected_map, padding, maps, list(image_sizes), padded_size, stride)

    def forward(self, features: MaskFeatures, hidden: Tensor, boxes: Tensor, image: Tensor) -> Tensor:
        """Return the mask logits (M, h', w') of queries hidden (M, C) with boxes (M, 4), normalised cxcywh, in the
        images `image` (M,).
        """
        attention = self.attention(
            hidden, features.encoded, image, boxes=boxes, cells=features.cells(), padding=features.padding
        )
        return self.head(features.projected, attention, features.maps, image)

    def of_image(self, features: MaskFeatures, hidden: Tensor, boxes: Tensor, index: int, size: Size) -> Tensor:
        """Return the mask logits (N, *size) float32 of queries hidden (N, C) with boxes (N, 4) in image number `index`,
        resized to `size` (height, width) by bilinear interpolation.

        The image is computed alone, so that its masks are the same in any batch.
        """
        logits = torch.empty(len(hidden), *size, dtype=torch.float32, device=hidden.device)
        for number, of_query in enumerate(self._each_query(features, hidden, boxes, index, size)):
            logits[number] = of_query
        return logits

    def masks_of_image(
        self, features: MaskFeatures, hidden: Tensor, boxes: Tensor, queries: Tensor, index: int, size: Size
    ) -> Tensor:
        """Return the masks (N, *size) bool of the `queries` (N,), numbers in hidden (Q, C) and boxes (Q, 4): where the
        logits of `of_image` are above 0. Of these, one query at a time is in memory; a query may come several times.
        """
        numbers, place = queries.unique(return_inverse=True)
        masks = torch.empty(len(queries), *size, dtype=torch.bool, device=hidden.device)
        for number, of_query in enumerate(self._each_query(features, hidden[numbers], boxes[numbers], index, size)):
            masks[place == number] = of_query > 0
        return masks

    def _each_query(
        self, features: MaskFeatures, hidden: Tensor, boxes: Tensor, index: int, size: Size
    ) -> Iterator[Tensor]:
        """Yield the mask logits (*size) float32 of each query: computed for some at a time, resized one by one."""
        own = features.of_image(index)
        for some, their_boxes in zip(hidden.split(QUERIES_AT_ONCE), boxes.split(QUERIES_AT_ONCE), strict=True):
            image = torch.zeros(len(some), dtype=torch.int64, device=some.device)
            if len(some):  # an empty tensor is split into one part
                for logits in self(own, some, their_boxes, image).float():
                    yield F.interpolate(logits[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]


@dataclass(kw_only=True)
class HiddenPredictions(Predictions):
    """A prediction set with the last layer's outputs for its queries, `hidden` (B, groups * Q, C), as the head read
    them, and `masks`, where the set has any.
    """

    hidden: Tensor
    masks: "QueryMasks | None" = None


class HiddenHead:
    """A detector's head that also hands on what it read; it is no part of the model."""

    def __init__(self, head: Head) -> None:
        self.head = head

    def __call__(self, hidden: Tensor, references: Sequence[Tensor] | None) -> HiddenPredictions:
        """Predict as the head does: hidden (R, B, Q, C)."""
        return HiddenPredictions(**fields_of(self.head(hidden, references)), hidden=hidden[-1])


class RefiningHiddenHead(HiddenHead):
    """`HiddenHead` for a head that moves references."""

    head: RefiningHead

    def refine(self, x: Tensor, reference: Tensor, layer: int) -> Tensor:
        """Move the references as the head does."""
        return self.head.refine(x, reference, layer)


class ClassifyingHiddenHead(RefiningHiddenHead):
    """`RefiningHiddenHead` for a head whose classes can be read between the layers."""

    head: Any

    @property
    def softmax(self) -> bool:
        """Whether the logits have a column of "no object"."""
        return bool(getattr(self.head, "softmax", False))

    def classify(self, x: Tensor, layer: int) -> Tensor:
        """Return the logits of a layer as the head does."""
        logits: Tensor = self.head.classify(x, layer)
        return logits


def reading(head: Head) -> HiddenHead:
    """Return the head that also hands on what it reads, and does between the layers what `head` does."""
    if not isinstance(head, RefiningHead):
        return HiddenHead(head)
    return ClassifyingHiddenHead(head) if isinstance(head, ClassifyingHead) else RefiningHiddenHead(head)


class QueryMasks:
    """The masks of a set's matched queries, computed when the first loss asks for them.

    Losses run in float32, the branch in the precision of the forward pass that made this.
    """

    def __init__(self, branch: MaskBranch, features: MaskFeatures) -> None:
        self.branch = branch
        self.features = features
        device = features.projected.device.type
        self._autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        self._latest: tuple[Match, MatchedMasks] | None = None

    def matched(self, preds: HiddenPredictions, targets: Targets, match: Match) -> "MatchedMasks":
        """Return the masks of the pairs of the last layer, computed once for all losses on a match."""
        if self._latest is None or self._latest[0] is not match:
            self._latest = match, self._matched(preds, targets, match)
        return self._latest[1]

    def _matched(self, preds: HiddenPredictions, targets: Targets, match: Match) -> "MatchedMasks":
        pairs = pairs_of_last_layer(match, len(preds.boxes), preds.groups)
        image, query = pairs.image, pairs.query + pairs.row * preds.boxes.shape[2]
        boxes = preds.boxes[len(preds.boxes) - preds.groups + pairs.row, image, pairs.query]
        if not len(pairs):  # one query in place of none, so that the branch has a gradient (of zero)
            image = query = torch.zeros(1, dtype=torch.int64, device=preds.boxes.device)
            boxes = preds.boxes[-1, :1, 0]
        device, dtype, enabled = self._autocast
        with torch.autocast(device, dtype=dtype, enabled=enabled):
            logits = self.branch(self.features, preds.hidden[image, query], boxes, image)
        size = self.features.padded_size
        logits = F.interpolate(logits[:, None].float(), size=size, mode="bilinear", align_corners=False)[:, 0]
        return MatchedMasks(logits, target_masks(targets, pairs, size) if len(pairs) else None, pairs)


@dataclass
class MatchedMasks:
    """Mask logits (M, H, W) float32 of the matched queries of a batch padded to (H, W), and their target masks, bool.

    `pairs` has one row per query group, those of the last layer. Without pairs the truth is None, and the logits are
    those of one query that is matched to nothing.
    """

    logits: Tensor
    truth: Tensor | None
    pairs: Match


def pairs_of_last_layer(match: Match, rows: int, groups: int) -> Match:
    """Return the pairs of the last `groups` of `rows` rows, with the row counted from there.

    On a device this waits for the number of pairs, once per step.
    """
    (last,) = (match.row >= rows - groups).nonzero(as_tuple=True)  # once; a mask as index would wait for each tensor
    weight = None if match.weight is None else match.weight[last]
    row = match.row[last] - (rows - groups)
    return Match(row, match.image[last], match.query[last], match.target[last], weight, match.skipped)


def target_masks(targets: Targets, pairs: Match, size: Size) -> Tensor:
    """Return the masks of the matched targets, (M, *size) bool, False outside of their images.

    They are copied to the device as they are, all at once. Raise DatasetError for an image without masks.
    """
    masks = torch.zeros(sum(targets.counts), *size, dtype=torch.bool)
    start, first = 0, []
    for index, count in enumerate(targets.counts):
        first.append(start)
        if count:
            own = _masks_of(targets, index)
            masks[start : start + count, : own.shape[-2], : own.shape[-1]] = own
        start += count
    device = pairs.image.device
    index_of = torch.tensor(first, device=device)[pairs.image] + pairs.target
    return masks.to(device, non_blocking=True)[index_of]


def _masks_of(targets: Targets, index: int) -> Tensor:
    instances = targets.instances[index]
    if not instances.has("gt_masks"):
        raise DatasetError(
            f"Image {targets.name_of(index)} has no masks, which the mask losses need: set dataloader.train.mapper to "
            "a MaskMapper."
        )
    return instances.gt_masks.tensor


def with_masks(preds: Predictions, branch: MaskBranch, features: MaskFeatures) -> Predictions:
    """Return a set whose masks the losses can ask for."""
    return dataclasses.replace(preds, masks=QueryMasks(branch, features))  # type: ignore[call-arg]  # HiddenPredictions
