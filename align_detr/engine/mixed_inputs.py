"""What mosaic and mixup make of training's images: pictures of the first, and a count at the end."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.utils import comm
from PIL import Image

from align_detr.checkpoint.files import disk_problems
from align_detr.data.build import TrainLoader
from align_detr.inference.drawing import draw_boxes

logger = logging.getLogger(__name__)

FOLDER = "pictures_mixed"


class MixedInputs:
    """The batches of a training loader, passed on as they are.

    The main process's first `count` mixtures are drawn with their objects, as PNG files in `folder`. When the batches
    end, if there were any, one line says how many images of this process were mixed, and how many objects were left
    out.
    """

    def __init__(self, loader: TrainLoader, *, count: int, folder: Path, names: Sequence[str]) -> None:
        self.loader = loader
        self.count = count if comm.is_main_process() else 0
        self.folder = folder
        self.names = names

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        images = mixed = left_out = drawn = 0
        try:
            for batch in self.loader:
                mixtures = [record for record in batch if "mixed_with" in record]
                images, mixed = images + len(batch), mixed + len(mixtures)
                left_out += sum(record["left_out"] for record in mixtures)
                for record in mixtures[: self.count - drawn]:
                    drawn += 1
                    self._draw(record, drawn)
                yield batch
        finally:
            if images:
                logger.info("Mixed %d of %d images; %d objects were left out of them.", mixed, images, left_out)

    def _draw(self, record: Mapping[str, Any], number: int) -> None:
        pixels = record["image"].clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
        instances = record["instances"]
        classes = instances.gt_classes.tolist()
        names = [*self.names, *map(str, range(len(self.names), max(classes, default=-1) + 1))]
        boxes = instances.gt_boxes.tensor.tolist()
        image = Image.fromarray(np.ascontiguousarray(pixels.numpy()))
        with disk_problems(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            draw_boxes(image, boxes=boxes, scores=None, classes=classes, names=names).save(
                self.folder / f"{number}.png"
            )


def with_mixed_pictures(
    loader: Iterable[Any], *, count: int, output_dir: str | Path, names: Sequence[str]
) -> Iterable[Any]:
    """Return a loader whose mixtures are counted, and the first drawn; one that mixes nothing as it is."""
    if not isinstance(loader, TrainLoader) or not loader.dataset.mixes:
        return loader
    return MixedInputs(loader, count=count, folder=Path(output_dir) / FOLDER, names=names)
