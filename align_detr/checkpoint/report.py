"""The report of loading weights: one line for the terminal, details for log.txt, and what must not be left over."""

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from align_detr.checkpoint.class_rows import ClassReport
from align_detr.errors import ConfigError

logger = logging.getLogger(__name__)
# what a file of a backbone may hold that the model has not: an ImageNet classifier
_OF_BACKBONE = re.compile(r"backbone\..+|(?:.*\.)?(?:fc\d*|classifier)\..+")
_LISTED = 8  # classes and parts in the line, at most


@dataclass(frozen=True)
class LoadReport:
    """What a file gave to a model; `str` is one line.

    loaded, new: the model's tensors that came from the file, and those that start fresh. left_over: the file's tensors
    that the model has not. wrong_shapes: {name: (the file's, the model's)}. share: of the model's numbers, how many
    came from the file. fits: how many of the file's tensors the model has, in their shape.
    """

    path: str
    loaded: Sequence[str]
    new: Sequence[str]
    left_over: Sequence[str]
    wrong_shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    share: float
    fits: int
    classes: ClassReport | None = None

    def __str__(self) -> str:
        if self.is_backbone:
            return f"Loaded the backbone ({len(self.loaded)} tensors); {len(self.new)} others start fresh."
        count = f"{len(self.loaded)} of {len(self.loaded) + len(self.new)} tensors"
        parts = [f"Loaded {count} ({int(100 * self.share)} % of the numbers)"]
        if self.classes is not None and self.classes.mapped:
            parts.append(f"classes by name: {_some(self.classes.mapped)}")
        new = [f"{part} ({number})" for part, number in self._new_parts().items()]
        new = [*_short(new, "parts"), *([self._new_classes()] if self._new_classes() else [])]
        if new:
            parts.append(f"new: {', '.join(new)}")
        if self.left_over:
            parts.append(f"left over: {len(self.left_over)} tensors of the file")
        return "; ".join(parts) + "."

    @property
    def is_backbone(self) -> bool:
        """Whether the file gave the whole backbone and nothing else; its own classifier does not count."""
        others = [name for name in self.left_over if not _OF_BACKBONE.fullmatch(name)]
        only = bool(self.loaded) and all(name.startswith("backbone.") for name in self.loaded)
        return only and bool(self.new) and not others and not self._lacks_backbone()

    def _lacks_backbone(self) -> bool:
        """Return whether a tensor of the backbone starts fresh; those of a feature pyramid are beside it."""
        inner = "backbone.bottom_up."
        pyramid = any(name.startswith(inner) for name in [*self.loaded, *self.new])
        return any(name.startswith(inner if pyramid else "backbone.") for name in self.new)

    def log(self) -> None:
        """Log the line, as a warning if not even the backbone is whole, and the names for log.txt."""
        logger.log(logging.WARNING if self._lacks_backbone() else logging.INFO, "%s", self)
        if self.classes is not None and self.classes.repeated:
            logger.warning(
                "The classes %s occur more than once in %s or in the data, so their rows start fresh.",
                _some(sorted(self.classes.repeated)),
                self.path,
            )
        for text, names in (
            ("not in the file, start fresh", self.new),
            ("in the file and not in the model", self.left_over),
            ("in another shape (the file's, the model's)", [f"{k} {v}" for k, v in self.wrong_shapes.items()]),
        ):
            if names:
                logger.debug("Tensors %s: %s", text, ", ".join(names))

    def require_release(self, release: str, config: str | None) -> None:
        """Raise ConfigError if anything but classes of the weights of a published model has no counterpart."""
        of_classes = {} if self.classes is None else self.classes.taken
        new = [name for name in self.new if name not in of_classes]
        left = [*self.left_over, *self.wrong_shapes]
        if not new and not left:
            return
        lost = f"{len(left)} of its tensors have no place in this model, such as '{left[0]}'" if left else ""
        lacking = f"{len(new)} of the model's are not in it, such as '{new[0]}'" if new else ""
        remedy = (
            "no config of the model zoo fits them, write one for their model"
            if config is None
            else f"use the config {config}, or one made from it"
        )
        raise ConfigError(
            f"{self.path} has the weights of {release}, and {' and '.join(filter(None, (lost, lacking)))}: {remedy} "
            "(any model takes what fits of a file that `align-detr weights convert` writes)."
        )

    def require_complete(self) -> None:
        """Raise ConfigError if a tensor of the model is not in the file, or in another shape, or of other classes."""
        misfits = [name for name in self.new if name in self.wrong_shapes]
        if misfits:
            given, wanted = self.wrong_shapes[misfits[0]]
            raise ConfigError(
                f"{self.path} has '{misfits[0]}' in another shape than the model's, {given} instead of {wanted} "
                f"({len(misfits)} such parameters): use the config that it was trained with."
            )
        missing = [name for name in self.new if self.classes is None or name not in self.classes.taken]
        if missing:
            raise ConfigError(
                f"{self.path} lacks {len(missing)} of the model's tensors, such as '{missing[0]}': name a file of the "
                "whole model."
            )
        if self.classes is not None and self.classes.taken and (self.classes.new or self.classes.fresh_parts):
            unknown = (
                f"does not know the classes {_some(self.classes.new)}"
                if self.classes.new
                else (f"has {self.classes.theirs} classes instead of {self.classes.ours}, or other ones")
            )
            raise ConfigError(f"{self.path} {unknown}: train it for the classes of the data first.")

    def require_nothing_left_over(self) -> None:
        """Raise ConfigError if the file has tensors that the model has not."""
        if self.left_over:
            raise ConfigError(
                f"{self.path} has {len(self.left_over)} tensors that the model has not, such as '{self.left_over[0]}': "
                "name the config of its training."
            )

    def _new_parts(self) -> Counter[str]:
        """Count the new tensors by part of the model, those with rows per class left out."""
        of_classes = {} if self.classes is None else self.classes.taken
        return Counter(name.partition(".")[0] for name in self.new if name not in of_classes)

    def _new_classes(self) -> str:
        """Return what the line says of new classes, "" if there are none."""
        if self.classes is None or not (self.classes.new or self.classes.fresh_parts):
            return ""
        if self.classes.new:
            return f"{'classes' if len(self.classes.new) > 1 else 'class'} {_some(self.classes.new)}"
        theirs = self.classes.theirs
        instead = "of other names" if theirs in (None, self.classes.ours) else f"instead of {theirs}"
        return f"classes ({self.classes.ours} {instead}): {', '.join(self.classes.fresh_parts)}"


def _short(items: Sequence[str], what: str) -> list[str]:
    """Return the items, a long list shortened."""
    return [*items[:_LISTED], *([f"{len(items) - _LISTED} more {what}"] if len(items) > _LISTED else [])]


def _some(names: Sequence[str]) -> str:
    return ", ".join(_short(names, "classes"))
