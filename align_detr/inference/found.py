"""What a detector has found in one image, whatever has computed it: its names, and what becomes of it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from align_detr.errors import ConfigError, DatasetError, EnvironmentProblem
from align_detr.inference.classes import Classes
from align_detr.inference.drawing import draw_boxes
from align_detr.inference.pixels import as_pixels
from align_detr.value_checks import check_between

if TYPE_CHECKING:
    import supervision


class Found:
    """What both detectors' results do; a subclass has `image_size` (height, width), `scores` and `pred_classes`, which
    are tensors or arrays, `boxes`, and the four attributes below.
    """

    _classes: Classes
    _file_name: str | None
    _frame: int | None
    _pixels: Callable[[], np.ndarray] | None

    scores: Any
    pred_classes: Any

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the image."""
        raise NotImplementedError

    @property
    def boxes(self) -> np.ndarray:
        """Boxes (N, 4) float32, absolute xyxy in the image's pixels."""
        raise NotImplementedError

    def __getitem__(self, item: Any) -> "Found":
        """Return the detections that `item` selects: an index, a slice, indices or a mask."""
        raise NotImplementedError

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

    def to_coco(self, image_id: int | str = 0) -> list[dict[str, Any]]:
        """Return the detections in COCO's results format: image_id, category_id, bbox (x, y, width, height), score.

        Category ids are those of the data set where the detector knows them, else class indices from 1.
        """
        boxes = self.boxes.copy()
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
            xyxy=self.boxes,
            confidence=np.array(self.scores.tolist(), dtype=np.float32),
            class_id=np.array(self.pred_classes.tolist(), dtype=np.int64),
            data={"class_name": np.array(self.labels, dtype=np.str_)},
        )

    def draw(self, image: Any = None, *, threshold: float = 0.3) -> Image.Image:
        """Return the image with the detections that score at least `threshold`, drawn with class name and score.

        `image` is anything that `predict` takes as one image; by default the one that was given to it, of which a file
        is read again. Raise ConfigError for an image of another size.
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
            boxes=shown.boxes.tolist(),
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
