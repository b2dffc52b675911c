"""What a detector finds in one image: detectron2's Instances that know their class names."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from detectron2.structures import Instances

from align_detr.inference.classes import Classes
from align_detr.inference.found import Found

__all__ = ["Classes", "Detections", "detections_of"]


class Detections(Instances, Found):
    """Detections in one image, best first, on the CPU: `pred_boxes` (absolute xyxy in the image's pixels), `scores` and
    `pred_classes`.

    These are Instances, so that detectron2's Visualizer and evaluators take them, and a class of their own, so that
    slices (`found[found.scores > 0.5]`) keep the names of their classes. `file_name` is the image's path, None for one
    in memory; `frame` the number in a video, from 0.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        *,
        _classes: Classes | None = None,
        _file_name: str | None = None,
        _frame: int | None = None,
        _pixels: Callable[[], np.ndarray] | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(image_size, **fields)
        self._classes = _classes or Classes([])
        self._file_name, self._frame, self._pixels = _file_name, _frame, _pixels

    @property
    def boxes(self) -> np.ndarray:
        """Boxes (N, 4) float32 as an array, those of `pred_boxes`."""
        return self.pred_boxes.tensor.detach().cpu().numpy()

    def to(self, *args: Any, **kwargs: Any) -> "Detections":
        """Return the detections on another device."""
        return self._like(super().to(*args, **kwargs))

    def __getitem__(self, item: Any) -> "Detections":
        """Return the detections that `item` selects: an index, a slice, indices or a mask."""
        return self._like(super().__getitem__(item))

    def _like(self, instances: Instances) -> "Detections":
        return Detections(
            instances.image_size,
            _classes=self._classes,
            _file_name=self._file_name,
            _frame=self._frame,
            _pixels=self._pixels,
            **instances.get_fields(),
        )


def detections_of(instances: Instances, **context: Any) -> Detections:
    """Return a model's output as Detections, on the CPU and best first."""
    fields = {name: value.to("cpu") if hasattr(value, "to") else value for name, value in _fields(instances).items()}
    order = fields["scores"].argsort(descending=True, stable=True)
    return Detections(instances.image_size, **context, **{name: value[order] for name, value in fields.items()})


def _fields(instances: Instances) -> dict[str, Any]:
    return cast(dict[str, Any], instances.get_fields())
