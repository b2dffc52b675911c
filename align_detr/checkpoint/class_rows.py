"""Rows of classifiers and label tables: which rows are which class's, and taking them over by name."""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from align_detr.checkpoint.detr import coco_category_ids

# name of a tensor with rows per class, and the part that the load report names, in its order
_PARTS = [
    (re.compile(r"head\.class_embed\..+|class_embed\..+"), "head"),
    (re.compile(r"points\.class_embed\..+"), "points"),
    (re.compile(r"proposals\.class_embed\..+"), "proposals"),
    (re.compile(r"(?:.*\.)?label_embed\.weight"), "label embedding"),
    (re.compile(r"roi_heads\.(?:.*\.)?(?:cls_score|classifier\.linear)\..+"), "classifier"),
    (re.compile(r"roi_heads\.(?:.*\.)?(?:bbox_pred|boxes\.mlp\.layers\.2)\.(?:weight|bias)"), "boxes per class"),
]
_PER_BOX = "boxes per class"


@dataclass(frozen=True)
class Rows:
    """How the rows of a tensor belong to classes: `per_class` of each class, then `extra` of none ("no object")."""

    part: str
    per_class: int
    extra: int

    def count(self, rows: int) -> int | None:
        """Return the number of classes that `rows` rows are of, or None if that is no whole number."""
        count, rest = divmod(rows - self.extra, self.per_class)
        return None if rest or count < 1 else count


@dataclass
class ClassReport:
    """What became of the classes: K of the model and of the file (None: not known), the names taken over and the new.

    taken: share of the numbers that come from the file, by name of a tensor of which not all do. fresh_parts: the parts
    of which no class does. repeated: names that stand for more than one class, whose rows are not taken over.
    """

    ours: int
    theirs: int | None = None
    mapped: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    taken: dict[str, float] = field(default_factory=dict)
    fresh_parts: list[str] = field(default_factory=list)
    repeated: set[str] = field(default_factory=set)

    def add(self, name: str, part: str, source: Sequence[int | None]) -> None:
        """Record that a tensor of `part` has the rows of those classes whose index in the file is given."""
        known = sum(s is not None for s in source)
        self.taken[name] = known / len(source) if known else 0.0
        if not known:
            self.fresh_parts = [each for _, each in _PARTS if each == part or each in self.fresh_parts]


def repeated_names(names: Sequence[str | None]) -> set[str]:
    """Return the names that stand for more than one class."""
    return {name for name, count in Counter(names).items() if count > 1 and name is not None}


def rows_of(name: str, tensor: Tensor, num_classes: int | None) -> Rows | None:
    """Return how the rows of a model's tensor belong to its classes, or None if they do not."""
    part = next((part for pattern, part in _PARTS if pattern.fullmatch(name)), None)
    if part is None or num_classes is None or tensor.dim() == 0:
        return None
    kinds = [Rows(part, 4, 0)] if part == _PER_BOX else [Rows(part, 1, 0), Rows(part, 1, 1)]
    return next((kind for kind in kinds if kind.count(tensor.shape[0]) == num_classes), None)


def is_agnostic(name: str, keys: Collection[str]) -> bool:
    """Return whether the tensor scores proposals by one class, "object", whose row comes first (Deformable-DETR)."""
    agnostic = any(f"{queries}.projection.weight" in keys for queries in ("queries", "queries.source"))
    return name.startswith("proposals.") and agnostic


def coco_names(count: int) -> list[str | None] | None:
    """Return the classes of the rows of a release: COCO's 80, or those of the ids from 0 on, None where none is."""
    from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

    names = {c["id"]: c["name"] for c in COCO_CATEGORIES if c["isthing"]}
    if count == len(names):
        return [names[i] for i in coco_category_ids()]
    return [names.get(i) for i in range(count)] if count in (91, 92) else None  # 92: one that never has a target


def take_rows(theirs: Tensor, ours: Tensor, rows: Rows, source: Sequence[int | None]) -> Tensor:
    """Return `ours` with the rows of class c from class `source[c]` of `theirs` (None: as they are), and the extra."""
    theirs = theirs.to(ours.dtype)
    result = theirs.new_zeros(ours.shape) if ours.is_meta else ours.detach().to(theirs.device, copy=True)
    step = torch.arange(rows.per_class)
    pairs = [(c, s) for c, s in enumerate(source) if s is not None]
    if pairs:
        into, out_of = (torch.cat([k * rows.per_class + step for k in side]) for side in zip(*pairs, strict=True))
        result[into] = theirs[out_of]
    if rows.extra:
        result[-rows.extra :] = theirs[-rows.extra :]
    return result
