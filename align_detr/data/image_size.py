"""One number for the size of images: the augmentations of training and evaluation, scaled together."""

from collections.abc import Iterator
from typing import Any

from detectron2.config import LazyCall as L
from detectron2.data.transforms import ResizeShortestEdge
from omegaconf import DictConfig, ListConfig

from align_detr.errors import ConfigError

_SIDES = ("short_edge_length", "shape", "target_height", "target_width")  # of detectron2's resizing augmentations
_SCALED = (*_SIDES, "max_size", "crop_size")
_LISTS = ("augmentations", "augmentations_with_crop")
_LONG_SIDE = 1333 / 800  # of the short side at most, as in DETR


def set_image_size(dataloader: DictConfig, size: Any) -> None:
    """Make `size` the short side, in pixels, at which a config evaluates, and scale all other sizes with it.

    That is: the short sides of training, the longest sides and the crops in pixels keep their ratio to the short side
    of evaluation. DETR's 480 to 800 with a longest side of 1333 and crops of 384 to 600 become, with 400, 240 to 400,
    666 and 192 to 300. A list of augmentations that does not resize gets a resizing at its end. Calling it again
    changes nothing. Raise ConfigError for a size that is no positive number, and for a mapper without augmentations.
    """
    if type(size) is not int or size < 1:
        raise ConfigError(f"train.image_size={size} must be a number of pixels: set it to a whole number such as 480.")
    lists = list(_augmentation_lists(dataloader))
    reference = next((side for _, side in reversed(lists) if side), None)  # of evaluation if it resizes
    scaled: set[int] = set()  # a list may stand in two mappers by interpolation
    for augmentations, side in lists:
        if id(augmentations) in scaled:
            continue
        scaled.add(id(augmentations))
        if side is None or reference is None:
            resizing = L(ResizeShortestEdge)(short_edge_length=size, max_size=round(size * _LONG_SIDE))
            augmentations.append(resizing)
            continue
        for augmentation in augmentations:
            _scale(augmentation, size / reference)


def follow_test_mapper(dataloader: DictConfig, mapper: DictConfig) -> None:
    """Make `mapper` that of the test data, and let training take images of the same kind and size.

    The sizes of training are scaled as `set_image_size` does, with the longest side of `mapper`; if `mapper` does not
    resize, neither does training, which then has no crops.
    """
    tested = mapper.get(_LISTS[0])
    last = _final_resizing(tested) if isinstance(tested, ListConfig) else None
    if last is not None:
        set_image_size(dataloader, _largest_side(last))
    for node in _nodes(dataloader, "train"):
        for name in _LISTS:
            if not isinstance(augmentations := node.mapper.get(name), ListConfig):
                continue
            if last is None:
                unresized = [each for each in augmentations if not _resizes(each)]
                node.mapper[name] = unresized if name == _LISTS[0] else None
                continue
            final = _final_resizing(augmentations)
            if final is not None and "max_size" in final and "max_size" in last:
                final.max_size = last.max_size
        for key in ("image_format", "white_level"):
            if key in mapper:
                node.mapper[key] = mapper[key]
    for node in _nodes(dataloader, "test"):
        node.mapper = mapper


def _augmentation_lists(dataloader: DictConfig) -> Iterator[tuple[ListConfig, int | None]]:
    """Yield the lists of augmentations of training, then those of evaluation, and the largest short side to which each
    resizes at its end (None: it does not resize).
    """
    for key in ("train", "test"):
        for loader in _nodes(dataloader, key):
            mapper = loader.get("mapper")
            if not isinstance(mapper, DictConfig) or not isinstance(mapper.get(_LISTS[0]), ListConfig):
                raise ConfigError(
                    f"train.image_size needs augmentations to set, and dataloader.{key}.mapper has none: set the sizes "
                    "in the mapper itself."
                )
            for name in _LISTS:
                if isinstance(augmentations := mapper.get(name), ListConfig):
                    yield augmentations, _final_side(augmentations)


def _nodes(dataloader: DictConfig, key: str) -> list[DictConfig]:
    """Return the loader of a key, or those of a list."""
    node = dataloader.get(key)
    return [loader for loader in (node if isinstance(node, ListConfig) else [node]) if loader is not None]


def _final_side(augmentations: ListConfig) -> int | None:
    last = _final_resizing(augmentations)
    return None if last is None else _largest_side(last)


def _final_resizing(augmentations: ListConfig) -> DictConfig | None:
    return next((each for each in reversed(list(augmentations)) if _resizes(each)), None)


def _resizes(augmentation: DictConfig) -> bool:
    return any(augmentation.get(key) is not None for key in _SIDES)


def _largest_side(augmentation: DictConfig) -> int:
    sides = [augmentation[key] for key in _SIDES if augmentation.get(key) is not None]
    return max(max(side) if isinstance(side, ListConfig) else side for side in sides)


def _scale(augmentation: DictConfig, factor: float) -> None:
    for key in _SCALED:
        value = augmentation.get(key)
        if isinstance(value, ListConfig):
            augmentation[key] = [_scaled(x, factor) for x in value]
        elif value is not None:
            augmentation[key] = _scaled(value, factor)


def _scaled(value: Any, factor: float) -> Any:
    """Return a number of pixels times `factor`; fractions of an image, and detectron2's "no limit", stay."""
    if isinstance(value, float) and value <= 1:
        return value
    return max(1, round(value * factor)) if value < 10**9 else value
