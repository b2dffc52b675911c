"""Gradient accumulation: one step in several parts, with the gradient of the whole batch."""

from collections.abc import Mapping, Sequence
from typing import Any

from align_detr.errors import ConfigError
from align_detr.structures import StepPart


def check_accumulate(accumulate: Any, images: int) -> int:
    """Return `train.accumulate`; raise ConfigError unless it divides the `images` per step of a process."""
    if type(accumulate) is not int or accumulate < 1:
        raise ConfigError(f"train.accumulate={accumulate} must be a positive whole number: set it to 1 for no parts.")
    if images % accumulate:
        raise ConfigError(
            f"train.accumulate={accumulate} does not divide the {images} images per process of a step: set it to a "
            f"divisor of {images}, or dataloader.train.total_batch_size to a multiple of it."
        )
    return accumulate


def split_batch(batch: Sequence[Any], parts: int) -> list[Sequence[Any]]:
    """Split the images of a step into `parts` batches of equal size, of which the last may be smaller.

    Each record gets the `StepPart` that its batch is, from which losses know the number of objects in the whole step.
    A batch that is no list of detectron2's records is split, but not marked.
    """
    size = max(1, -(-len(batch) // parts))
    chunks = [batch[i : i + size] for i in range(0, len(batch), size)]
    if len(chunks) < 2 or not all(isinstance(record, Mapping) and "instances" in record for record in batch):
        return chunks or [batch]
    counts = [[len(record["instances"]) for record in chunk] for chunk in chunks]
    marked: list[Sequence[Any]] = []
    for i, chunk in enumerate(chunks):
        others = tuple(n for j, of_chunk in enumerate(counts) if j != i for n in of_chunk)
        marked.append([{**record, "step_part": StepPart(len(chunks), others)} for record in chunk])
    return marked
