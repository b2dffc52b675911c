"""Files of a prediction: drawn pictures and videos, one JSON, one CSV."""

import csv
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from align_detr.errors import DatasetError
from align_detr.inference.classes import Classes
from align_detr.inference.found import Found
from align_detr.inference.video import VideoWriter, frame_rate, video_writer

JSON_FILE, CSV_FILE = "predictions.json", "predictions.csv"
COLUMNS = ("file", "frame", "class", "score", "x0", "y0", "x1", "y1")
_WRITTEN = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})  # endings that a drawn picture keeps


def require_new(folder: Path) -> None:
    """Raise DatasetError if a folder holds files already: those of two predictions are not mixed."""
    if folder.is_file() or (folder.suffix.lower() in _WRITTEN and not folder.exists()):
        raise DatasetError(
            f"{folder} is the name of a file, but pictures and lists go into a folder: name a new folder."
        )
    if folder.exists() and any(folder.iterdir()):
        raise DatasetError(f"{folder} holds files already: name a new folder, or empty it.")


class Names:
    """Names of pictures in one folder, none of which is given twice, whatever folder its source lies in."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def new(self, name: str) -> str:
        """Return `name`, or with the next free number behind its stem (file systems may not tell A from a)."""
        path, number, wanted = Path(name), 1, name
        while wanted.lower() in self._taken:
            number += 1
            wanted = f"{path.stem}_{number}{path.suffix}"
        self._taken.add(wanted.lower())
        return wanted


class Pictures:
    """Draws detections: an image as an image, the frames of a video as a video."""

    def __init__(self, folder: Path, threshold: float) -> None:
        self.folder, self.threshold = folder, threshold
        self._names, self._open = Names(), ExitStack()
        self._video: str | None = None
        self._writer: VideoWriter | None = None
        self._name = ""

    def __enter__(self) -> "Pictures":
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.close()

    def add(self, found: Found) -> str:
        """Draw the detections of an image or a frame and return the file's name in the folder."""
        if found.file_name is None or found.frame is None:
            self._finish_video()
            path = Path(found.file_name or "image.png")
            suffix = path.suffix if path.suffix.lower() in _WRITTEN else ".png"
            name = self._names.new(f"{path.stem}{suffix}")
            found.save(self.folder / name, threshold=self.threshold)
            return name
        if found.file_name != self._video or found.frame == 0:
            self._finish_video()
            self._video = found.file_name
            self._name = self._names.new(f"{Path(found.file_name).stem}.mp4")
            rate = frame_rate(found.file_name)
            self._writer = self._open.enter_context(video_writer(self.folder / self._name, rate))
        assert self._writer is not None
        self._writer.write(np.asarray(found.draw(threshold=self.threshold)))
        return self._name

    def _finish_video(self) -> None:
        self._open.close()
        self._video = self._writer = None


class JsonFile:
    """One COCO file of all detections: `categories`, `images` and `annotations`, each of which has a `score`.

    `annotations` alone are COCO's results format. An image has its `file_name` as given, `frame` in a video, and
    `picture`, the drawn file. Annotations are written as they come, so that memory does not grow with them.
    """

    def __init__(self, file: IO[str], classes: Classes) -> None:
        self._file = file
        self._images: list[dict[str, Any]] = []
        self._count = 0
        file.write(f'{{"categories": {_compact(classes.categories())},\n"annotations": [')

    def add(self, found: Found, picture: str | None) -> None:
        """Write the detections of an image."""
        number = len(self._images) + 1
        height, width = found.image_size
        image = {"id": number, "file_name": found.file_name, "width": width, "height": height}
        image |= {} if found.frame is None else {"frame": found.frame}
        self._images.append(image | ({} if picture is None else {"picture": picture}))
        for each in found.to_coco(number):
            self._file.write(",\n" if self._count else "\n")
            self._count += 1
            area = each["bbox"][2] * each["bbox"][3]
            self._file.write(_compact({"id": self._count, **each, "area": area, "iscrowd": 0}))

    def finish(self) -> None:
        """Write the images."""
        self._file.write(f'\n],\n"images": {_compact(self._images)}}}\n')


class CsvFile:
    """One table of all detections, a row each; boxes are absolute xyxy in pixels."""

    def __init__(self, file: IO[str]) -> None:
        self._rows = csv.writer(file)
        self._rows.writerow(COLUMNS)

    def add(self, found: Found) -> None:
        """Write the detections of an image."""
        frame = "" if found.frame is None else found.frame
        for label, score, box in zip(found.labels, found.scores.tolist(), found.boxes.tolist(), strict=True):
            self._rows.writerow([found.file_name, frame, label, f"{score:.6g}", *(f"{x:.2f}" for x in box)])


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class Report:
    """All files of one prediction, in one folder."""

    def __init__(self, pictures: Pictures | None, json_file: JsonFile | None, csv_file: CsvFile | None) -> None:
        self.pictures, self.json_file, self.csv_file = pictures, json_file, csv_file

    def add(self, found: Found) -> None:
        """Write what was found in an image or a frame."""
        picture = None if self.pictures is None else self.pictures.add(found)
        if self.json_file is not None:
            self.json_file.add(found, picture)
        if self.csv_file is not None:
            self.csv_file.add(found)


@contextmanager
def report(
    folder: Path, classes: Classes, *, threshold: float | None, with_json: bool, with_csv: bool
) -> Iterator[Report]:
    """Yield the writer of a new folder's files; pictures show detections from `threshold` on, None: no pictures.

    Raise DatasetError for a folder that holds files already or cannot be written.
    """
    require_new(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            pictures = None if threshold is None else stack.enter_context(Pictures(folder, threshold))
            json_file = csv_file = None
            if with_json:
                json_file = JsonFile(stack.enter_context((folder / JSON_FILE).open("w", encoding="utf-8")), classes)
            if with_csv:
                file = stack.enter_context((folder / CSV_FILE).open("w", encoding="utf-8", newline=""))
                csv_file = CsvFile(file)
            try:
                yield Report(pictures, json_file, csv_file)
            finally:  # also of a run that is interrupted
                if json_file is not None:
                    json_file.finish()
    except OSError as error:
        raise DatasetError(f"{folder} cannot be written ({error}): correct that, or name another folder.") from error
