"""What a detector finds in one image: detectron2's Instances that know their class names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from detectron2.structures import Instances
from PIL import Image

from align_detr.checks import check_between
from align_detr.errors import ConfigError, DatasetError, EnvironmentProblem
from align_detr.inference.drawing import draw_boxes
from align_detr.inference.pixels import as_pixels

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True)
class Classes:
    """The classes that a detector tells apart: their names in the order of its logits, and category ids of a data set.

    `category_ids`: class index -> category id in the data set's annotations; others count from 1, as
    `align-detr convert` writes them.
    """

    names: Sequence[str]
    category_ids: Mapping[int, int] = field(default_factory=dict)

    def category_id(self, index: int) -> int:
        """Return the category id of a class."""
        return self.category_ids.get(index, index + 1)

    def categories(self) -> list[dict[str, Any]]:
        """Return COCO's categories."""
        return [{"id": self.category_id(k), "name": name} for k, name in enumerate(self.names)]


class Detections(Instances):
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
    def class_names(self) -> list[str]:
        """Names of all classes of the detector, in the order of `pred_classes`."""
        return list(self._classes.names)

    @property
    def labels(self) -> list[str]:
        """Class name of each detection."""
        return [self._classes.names[k] for k in self.pred_classes.tolist()]

    @property
    def file_name(self) -> str | None:
        """Path of the image or video, None for an image in memory."""
        return self._file_name

    @property
    def frame(self) -> int | None:
        """Number of the frame in its video, from 0; None for an image."""
        return self._frame

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

    def to_coco(self, image_id: int | str = 0) -> list[dict[str, Any]]:
        """Return the detections in COCO's results format: image_id, category_id, bbox (x, y, width, height), score.

        Category ids are those of the data set where the detector knows them, else class indices from 1.
        """
        boxes = self.pred_boxes.tensor.detach().cpu().clone()
        boxes[:, 2:] -= boxes[:, :2]
        return [
            {"image_id": image_id, "category_id": self._classes.category_id(label), "bbox": box, "score": score}
            for label, box, score in zip(self.pred_classes.tolist(), boxes.tolist(), self.scores.tolist(), strict=True)
        ]

    def to_supervision(self) -> "supervision.Detections":
        """Return the detections as supervision's class of that name, with `class_name` in `data`.

        Raise EnvironmentProblem where supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise EnvironmentProblem(
                f"supervision cannot be imported ({error}): pip install 'align_detr[supervision]'."
            ) from error
        return supervision.Detections(
            xyxy=self.pred_boxes.tensor.detach().cpu().numpy(),
            confidence=self.scores.detach().cpu().numpy(),
            class_id=self.pred_classes.cpu().numpy(),
            data={"class_name": np.array(self.labels, dtype=np.str_)},
        )

    def draw(self, image: Any = None, *, threshold: float = 0.3) -> Image.Image:
        """Return the image with the detections that score at least `threshold`, drawn with class name and score.

        `image` is anything that `Detector.predict` takes as one image; by default the one that was given to it, of
        which a file is read again. Raise ConfigError for an image of another size.
        """
        check_between(threshold, "threshold", 0, 1, "set it to a score between them, such as 0.3")
        if image is None and self._pixels is None:
            raise ConfigError("The detections do not know their image: pass it, as in found.draw(image).")
        pixels = as_pixels(image) if self._pixels is None or image is not None else self._pixels()
        if pixels.shape[:2] != tuple(self.image_size):
            raise ConfigError(
                f"The image to draw on has {pixels.shape[1]}x{pixels.shape[0]} pixels, but the detections are of one "
                f"with {self.image_size[1]}x{self.image_size[0]}: pass the image that was given to predict."
            )
        shown = self[self.scores >= threshold]
        return draw_boxes(
            Image.fromarray(pixels),
            boxes=shown.pred_boxes.tensor.tolist(),
            scores=shown.scores.tolist(),
            classes=shown.pred_classes.tolist(),
            names=self._classes.names,
        )

    def save(self, path: str | Path, image: Any = None, *, threshold: float = 0.3) -> Path:
        """Write what `draw` returns as an image file, in the format of the path's ending, and return the path."""
        path = Path(path)
        picture = self.draw(image, threshold=threshold)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path, quality=92)  # of a JPEG; other formats do without
        except (OSError, ValueError) as error:  # ValueError: an ending that is no image's
            raise DatasetError(f"{path} cannot be written ({error}): name an image file, such as found.jpg.") from error
        return path


def detections_of(instances: Instances, **context: Any) -> Detections:
    """Return a model's output as Detections, on the CPU and best first."""
    fields = {name: value.to("cpu") if hasattr(value, "to") else value for name, value in _fields(instances).items()}
    order = fields["scores"].argsort(descending=True, stable=True)
    return Detections(instances.image_size, **context, **{name: value[order] for name, value in fields.items()})


def _fields(instances: Instances) -> dict[str, Any]:
    return cast(dict[str, Any], instances.get_fields())
