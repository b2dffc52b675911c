"""A model on pictures: read, resize, detect, merge the views, pick."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from align_detr.checks import check_between, check_flag
from align_detr.data.images import read_photo
from align_detr.inference.detections import Classes, Detections, detections_of
from align_detr.inference.merging import merge_views, merge_with_nms
from align_detr.inference.picking import Picking
from align_detr.inference.sources import OnError, Picture, detect_in_batches
from align_detr.inference.views import TestView, View
from align_detr.modeling.batching import one_size_at_a_time


@dataclass(frozen=True)
class Options(Picking):
    """What to return of an image, and how often to look at it; `Detector.predict` says what they mean."""

    flip: bool = False
    sides: int | Sequence[int] | None = None
    nms: float | None = None

    def check(self, model: nn.Module) -> None:
        """Raise ConfigError for a number out of its range, or more detections than the model gives."""
        if self.nms is not None:
            check_between(self.nms, "nms", 0, 1, "set it to an IoU between them, such as 0.7")
        check_flag(self.flip, "flip")
        self.check_for(getattr(getattr(model, "postprocess", None), "num_detections", math.inf))


@dataclass(frozen=True)
class Seen:
    """A picture that has been read: (height, width), and it in each view as the model's input."""

    picture: Picture
    size: tuple[int, int]
    images: list[Tensor]


@dataclass(frozen=True)
class Runner:
    """A model with what it needs around it to detect objects in pictures."""

    model: nn.Module
    view: TestView
    classes: Classes

    def stream(
        self, images: Iterable[Picture], options: Options, *, batch_size: int = 1, on_error: OnError | None = None
    ) -> Iterator[Detections]:
        """Yield the detections of each picture, `batch_size` of which are read and detected in at a time.

        A picture that cannot be read raises DatasetError, or is handed to `on_error` and left out.
        """
        views = self.view.views(flip=options.flip, sides=options.sides)
        read = partial(self._see, views=views, white_level=self._white_level(options))
        detect = partial(self._detect, views=views, options=options)
        yield from detect_in_batches(images, read, detect, batch_size=batch_size, on_error=on_error)

    def _white_level(self, options: Options) -> float | None:
        return self.view.white_level if options.white_level is None else options.white_level

    def _see(self, picture: Picture, views: Sequence[View], white_level: float | None) -> Seen:
        pixels = picture.pixels(white_level, read_photo)
        return Seen(picture, (pixels.shape[0], pixels.shape[1]), [view.image(pixels, picture.name) for view in views])

    def _detect(self, batch: Sequence[Seen], views: Sequence[View], options: Options) -> list[Detections]:
        """Return what the options ask for of each picture."""
        found = [self._in_view(batch, k, view) for k, view in enumerate(views)]
        return [
            options.pick(self._merged([of_view[i] for of_view in found], seen.picture, options))
            for i, seen in enumerate(batch)
        ]

    def _in_view(self, batch: Sequence[Seen], number: int, view: View) -> list[Instances]:
        """Return the detections of each picture in one view, in the picture's pixels."""
        images = [seen.images[number] for seen in batch]
        inputs = [
            {"image": image, "height": seen.size[0], "width": seen.size[1]}
            for image, seen in zip(images, batch, strict=True)
        ]
        with torch.no_grad(), evaluation_mode(self.model):
            outputs = one_size_at_a_time(images, lambda indices: self.model([inputs[i] for i in indices]))
        return [view.in_image(output["instances"]) for output in outputs]

    def _merged(self, views: Sequence[Instances], picture: Picture, options: Options) -> Detections:
        context: dict[str, Any] = {
            "_classes": self.classes,
            "_file_name": picture.file_name,
            "_frame": picture.frame,
            "_pixels": partial(picture.pixels, self._white_level(options), read_photo),
        }
        if len(views) == 1:
            return detections_of(views[0], **context)
        merged = merge_views(views) if options.nms is None else merge_with_nms(views, options.nms)
        return detections_of(merged, **context)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and at the end each of its modules into that in which it was."""
    training = [module for module in model.modules() if module.training]
    if training:
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
