"""What `dataloader.train.mixes` can hold, and which mapped images it can mix: boxes with classes, nothing else."""

from collections.abc import Sequence
from typing import Any

from align_detr.data.mask_mapper import MaskMapper
from align_detr.data.mixing import Mapped, Mix
from align_detr.errors import ConfigError

_FIELDS = {"gt_boxes", "gt_classes"}


def check_mixes(mixes: Sequence[Mix] | None, mapper: Any) -> list[Mix]:
    """Return the mixes of a training loader as a list, that of None empty.

    Raise ConfigError for what is no list of mixes, and for mixes beside a mapper that gives masks.
    """
    given: Any = () if mixes is None else mixes
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(map(_is_mix, given)):
        shown = type(given).__name__ if callable(given) else repr(given)
        raise ConfigError(
            f"dataloader.train.mixes is {shown}, but must be a list of mixes: set it to [L(Mosaic)(),L(MixUp)()], for "
            "example, or to [] or null to mix nothing."
        )
    checked = list(given)
    if checked and isinstance(mapper, MaskMapper):
        raise ConfigError(_describe(f"{type(mapper).__name__} of dataloader.train gives masks"))
    return checked


def require_mixable(mapped: Mapped) -> None:
    """Raise ConfigError for a mapped record whose objects are not boxes with classes alone."""
    instances = mapped.get("instances")
    fields = set() if instances is None else set(instances.get_fields())
    if fields != _FIELDS:
        found = ", ".join(sorted(fields)) or "no objects"
        raise ConfigError(_describe(f"mapper of dataloader.train gives {found}"))


def _is_mix(value: Any) -> bool:
    return callable(value) and not isinstance(value, type)


def _describe(given: str) -> str:
    return f"dataloader.train.mixes mixes boxes with classes, but the {given}: remove mixes, or use DetrMapper."
