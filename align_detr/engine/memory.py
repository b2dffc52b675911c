"""Memory that ran out in a step: which images it was, and which settings need less."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from align_detr.engine.recomputation import Recomputed
from align_detr.errors import EnvironmentProblem

_MESSAGES = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "alloc_cpu")
_NAMED = 3  # images in the sentence


class OutOfMemory(EnvironmentProblem):
    """Memory of the device or the host that does not suffice for a step."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is that of an allocator: PyTorch's, on a device or the host, or Python's."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _MESSAGES)


@contextmanager
def out_of_memory_of(
    batch: Sequence[Any], iteration: int, *, model: nn.Module, accumulate: int, mixed_precision: bool
) -> Iterator[None]:
    """Raise OutOfMemory with the images of `batch` and the settings that help, in place of an allocator's error."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        sentence = f"Memory ran out in iteration {iteration} with {describe_sizes(batch)}"
        recomputed = any(isinstance(vars(module).get("forward"), Recomputed) for module in model.modules())
        remedies = _remedies(len(batch), accumulate, mixed_precision, recomputed)
        raise OutOfMemory(f"{sentence}: {remedies}.") from error


def describe_sizes(batch: Sequence[Any]) -> str:
    """Return the number of images and the largest of them, with width, height and objects."""
    sizes = sorted(filter(None, map(_size, batch)), key=lambda size: size[0] * size[1], reverse=True)
    largest = ", ".join(
        f"{width}x{height} with {objects} object{'' if objects == 1 else 's'}"
        for width, height, objects in sizes[:_NAMED]
    )
    count = f"{len(batch)} image{'' if len(batch) == 1 else 's'}"
    if not largest:
        return count
    return f"{count} ({'the largest ' if len(sizes) > _NAMED else ''}{largest})"


def _size(record: Any) -> tuple[int, int, int] | None:
    """Return width, height and number of objects of a record of a batch, or None for what is no such record."""
    image = record.get("image") if isinstance(record, Mapping) else None
    if not isinstance(image, torch.Tensor) or image.dim() != 3:
        return None
    return image.shape[2], image.shape[1], len(record["instances"]) if "instances" in record else 0


def _remedies(images: int, accumulate: int, mixed_precision: bool, recomputed: bool) -> str:
    """Return the settings that need less memory, of those that are not in use."""
    more_parts = next((n for n in range(accumulate + 1, images + 1) if images % n == 0), None)
    settings = [] if more_parts is None else [f"train.accumulate={more_parts}"]
    settings += [] if recomputed else ["train.checkpoint_activations=True"]
    settings += ["a smaller train.image_size", *([] if mixed_precision else ["train.amp.enabled=True"])]
    if images > 1:
        settings.append("a smaller dataloader.train.total_batch_size")
    return f"set {', '.join(settings[:-1])} or {settings[-1]}" if len(settings) > 1 else f"set {settings[0]}"
