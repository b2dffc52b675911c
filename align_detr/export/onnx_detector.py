"""The detector without PyTorch: an exported file, with numpy, Pillow and onnxruntime.

from align_detr import OnnxDetector

detector = OnnxDetector("model.onnx")
found = detector.predict("photo.jpg")
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from align_detr.export.inputs import Input, batches, feed, prepare
from align_detr.export.metadata import Description
from align_detr.export.runtime import Session
from align_detr.inference.classes import Classes
from align_detr.inference.found import Found
from align_detr.inference.picking import Picking
from align_detr.inference.pixels import CHANNELS
from align_detr.inference.sources import OnError, Picture, detect_in_batches, in_form_of, pictures
from align_detr.value_checks import check_choice, check_count


class OnnxDetections(Found):
    """Detections in one image, best first: `boxes` (N, 4) float32, absolute xyxy in the image's pixels, `scores` (N,)
    float32 and `pred_classes` (N,) int64, all numpy arrays.

    They are what `Detections` are in PyTorch, with the same names; `found[found.scores > 0.5]` selects.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        *,
        boxes: np.ndarray,
        scores: np.ndarray,
        pred_classes: np.ndarray,
        _classes: Classes,
        _file_name: str | None = None,
        _frame: int | None = None,
        _pixels: Callable[[], np.ndarray] | None = None,
    ) -> None:
        self._image_size, self._boxes = image_size, boxes
        self.scores, self.pred_classes = scores, pred_classes
        self._classes, self._file_name, self._frame, self._pixels = _classes, _file_name, _frame, _pixels

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self._image_size

    @property
    def boxes(self) -> np.ndarray:
        """Boxes (N, 4) float32, absolute xyxy in the image's pixels."""
        return self._boxes

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        height, width = self.image_size
        return f"OnnxDetections({len(self)} in an image of {width}x{height} pixels)"

    def __getitem__(self, item: Any) -> "OnnxDetections":
        """Return the detections that `item` selects: an index, a slice, indices or a mask."""
        if isinstance(item, (int, np.integer)):
            item = [item]  # as one detection alone; IndexError as numpy's
        return OnnxDetections(
            self.image_size,
            boxes=self.boxes[item],
            scores=self.scores[item],
            pred_classes=self.pred_classes[item],
            _classes=self._classes,
            _file_name=self._file_name,
            _frame=self._frame,
            _pixels=self._pixels,
        )


@dataclass(frozen=True)
class _Seen:
    picture: Picture
    input: Input


class OnnxDetector:
    """A detector that `align-detr export` has written as an ONNX file: images in, detections out, without PyTorch.

    threads: of one image's computation, by default one per usable CPU. providers: onnxruntime's execution providers,
    by default CUDA where the package has it, else the CPU.
    Raise ConfigError for a file that cannot be used, and EnvironmentProblem without onnxruntime.

    `description` is what the file says of itself.
    """

    def __init__(self, path: str | Path, *, threads: int | None = None, providers: Sequence[str] | None = None) -> None:
        self._session = Session(path, threads=threads, providers=providers)
        self.description: Description = self._session.description

    @property
    def classes(self) -> Classes:
        """Names of the classes, and their category ids in the data set."""
        return self.description.classes

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of `pred_classes`."""
        return list(self.classes.names)

    def predict(
        self,
        source: Any,
        *,
        threshold: float | None = None,
        batch_size: int = 1,
        top_k: int | None = None,
        channels: str = "RGB",
        white_level: float | None = None,
    ) -> Any:
        """Return the OnnxDetections of one image, a list of them for several or a folder, an iterator for a video.

        source: as of `Detector.predict`: a path (of an image, a folder, a video), a file's bytes or the open file, a
        PIL image, an array (H, W, 3) in RGB as PIL's (as OpenCV's with channels="BGR") or grey (H, W), or a list of
        those. Arrays hold uint8 from 0 to 255 or floats from 0 to 1. Nothing is fetched from URLs. Boxes are in the
        pixels of the image as shown.
        threshold: least score; by default none. top_k: the best detections alone. batch_size: images per pass; a file
        with a fixed batch runs in its own, the last pass filled up with copies. white_level: the level of grey images
        of more than 8 bits that becomes 255; by default the file's, else 65535.
        Raise ConfigError for a source or a number that cannot be used, and DatasetError for an image that cannot be
        read.
        """
        found = self.stream(
            source,
            batch_size=batch_size,
            channels=channels,
            threshold=threshold,
            top_k=top_k,
            white_level=white_level,
        )
        return in_form_of(source, found)

    def stream(
        self,
        source: Any,
        *,
        batch_size: int = 1,
        channels: str = "RGB",
        on_error: OnError | None = None,
        threshold: float | None = None,
        top_k: int | None = None,
        white_level: float | None = None,
    ) -> Iterator[OnnxDetections]:
        """Return an iterator of the OnnxDetections of each image or frame, which are read as they are asked for.

        source: as in `predict`, also an iterator of images. No more than `batch_size` images, rounded up to a multiple
        of the file's fixed batch, are in memory. on_error: called with the DatasetError of each image that cannot be
        read, which is then left out; by default it is raised.
        All other arguments are as in `predict`.
        """
        picking = Picking(threshold, top_k, self.description.white_level if white_level is None else white_level)
        picking.check_for(self.description.num_detections)
        check_count(batch_size, "batch_size")
        check_choice(channels, "channels", CHANNELS)
        of_pass = self.description.batch or 1
        return detect_in_batches(
            pictures(source, channels=channels, on_error=on_error),
            partial(self._see, white_level=picking.white_level),
            partial(self._detect, picking=picking),
            batch_size=-(-batch_size // of_pass) * of_pass,  # else a fixed batch would be filled with copies
            on_error=on_error,
        )

    def _see(self, picture: Picture, white_level: float | None) -> _Seen:
        return _Seen(picture, prepare(picture.pixels(white_level), self.description, picture.name))

    def _detect(self, seen: Sequence[_Seen], picking: Picking) -> list[OnnxDetections]:
        """Return what is asked for of each picture, in their order."""
        found: dict[int, OnnxDetections] = {}
        for indices in batches([x.input for x in seen], self.description):
            outputs = self._session.run(feed([seen[i].input for i in indices], self.description))
            for i, boxes, scores, labels in zip(indices, *outputs, strict=False):  # a fixed batch has more at its end
                found[i] = picking.pick(self._in_image(seen[i], boxes, scores, labels, picking.white_level))
        return [found[i] for i in range(len(seen))]

    def _in_image(
        self, seen: _Seen, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, white_level: float | None
    ) -> OnnxDetections:
        """Return detections in the pixels of the image itself, best first, without boxes of no area."""
        height, width = seen.input.size
        scale = np.array([width / seen.input.seen[1], height / seen.input.seen[0]] * 2, dtype=np.float32)
        limits = np.array([width, height] * 2, dtype=np.float32)
        boxes = (boxes.astype(np.float32) * scale).clip(0, limits)
        order = np.argsort(-scores, kind="stable")
        kept = order[(boxes[order, 2:] > boxes[order, :2]).all(axis=1)]
        return OnnxDetections(
            (height, width),
            boxes=boxes[kept],
            scores=scores[kept].astype(np.float32),
            pred_classes=labels[kept].astype(np.int64),
            _classes=self.classes,
            _file_name=seen.picture.file_name,
            _frame=seen.picture.frame,
            _pixels=partial(seen.picture.pixels, white_level),
        )
