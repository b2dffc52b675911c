"""What a user points a detector at: one image, several, a folder or a video, as a sequence of pictures."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from align_detr.errors import ConfigError, DatasetError
from align_detr.image_files import UNREAD, files_below, is_image
from align_detr.inference.pixels import ReadPhoto, as_pixels, is_tensor, local_path
from align_detr.inference.video import frames, is_video, pyav
from align_detr.photos import named, read_photo

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Picture:
    """One image that is read when it is asked for: a path, an image in memory or a video's frame.

    `file_name` is its path or its video's, None in memory; `frame` the number in a video, from 0.
    """

    image: Any
    file_name: str | None = None
    frame: int | None = None
    channels: str = "RGB"

    def pixels(self, white_level: float | None = None, read: ReadPhoto = read_photo) -> np.ndarray:
        """Return the image as `as_pixels` does, and raise as it does."""
        return as_pixels(self.image, channels=self.channels, white_level=white_level, read=read)

    @property
    def name(self) -> str:
        """How an error calls the image."""
        return named(self.file_name or "")


def require_readable(paths: Iterable[str]) -> None:
    """Raise before anything is read: ConfigError for a URL, EnvironmentProblem for a video without PyAV."""
    if any(is_video(path) for path in [local_path(path) for path in paths]):
        pyav()


def is_one(source: Any) -> bool:
    """Return whether a source is one image."""
    if isinstance(source, (str, Path)):
        path = local_path(source)
        return not Path(path).is_dir() and not is_video(path)
    return isinstance(source, (bytes, Image.Image, np.ndarray)) or is_tensor(source) or _is_file(source)


def _is_file(source: Any) -> bool:
    """Return whether a source is an open file, which iterates over lines and is one image."""
    return callable(getattr(source, "read", None)) and not isinstance(source, Image.Image)


def is_endless(source: Any) -> bool:
    """Return whether the pictures of a source are to be had one at a time alone: of a video, of an iterator."""
    if isinstance(source, (str, Path)):
        return is_video(local_path(source))
    return isinstance(source, Iterator) and not _is_file(source)


def in_form_of(source: Any, found: Iterator[T]) -> Any:
    """Return what was found in a source: of one image it alone, of several a list, of a video the iterator."""
    if is_endless(source):
        return found
    return next(found) if is_one(source) else list(found)


OnError = Callable[[DatasetError], None]


def detect_in_batches(
    images: Iterable[Picture],
    read: Callable[[Picture], T],
    detect: Callable[[list[T]], Iterable[R]],
    *,
    batch_size: int,
    on_error: OnError | None,
) -> Iterator[R]:
    """Yield what `detect` returns of each `batch_size` pictures, as `read` gives them: no more are in memory.

    A picture that cannot be read raises DatasetError, or is handed to `on_error` and left out.
    """
    batch: list[T] = []
    for picture in images:
        try:
            batch.append(read(picture))
        except DatasetError as error:
            if on_error is None:
                raise
            on_error(error)
        if len(batch) == batch_size:
            yield from detect(batch)
            batch = []
    if batch:
        yield from detect(batch)


def pictures(source: Any, *, channels: str = "RGB", on_error: OnError | None = None) -> Iterator[Picture]:
    """Yield the pictures of a source: of an image, of a folder's images with its subfolders', sorted by path, of a
    video's frames, or of each of several such sources.

    Raise ConfigError for a URL and for what is no source. A folder without images and a video that breaks off raise
    DatasetError, or are handed to `on_error`.
    """
    if isinstance(source, (str, Path)):
        try:
            yield from _of_path(local_path(source))
        except DatasetError as error:
            if on_error is None:
                raise
            on_error(error)
    elif isinstance(source, np.ndarray):  # copied, as cameras fill one array again and again
        yield Picture(source.copy(), channels=channels)
    elif is_tensor(source):
        yield Picture(source.detach().clone(), channels=channels)
    elif isinstance(source, (bytes, Image.Image)):
        yield Picture(source)
    elif _is_file(source):
        yield Picture(_content(source))
    elif isinstance(source, Iterable) and not isinstance(source, (bytearray, Mapping)):
        for part in source:
            yield from pictures(part, channels=channels, on_error=on_error)
    else:
        raise ConfigError(
            f"A {type(source).__name__} is no source of images: pass a path, a folder, a video, a PIL image, an array, "
            "a tensor, or a list of them."
        )


def _content(file: Any) -> bytes:
    """Return the bytes of an open file; raise ConfigError for one that is read as text."""
    content = file.read()
    if not isinstance(content, bytes):
        raise ConfigError(
            "The open file gives text instead of an image's bytes: open it with mode 'rb', or pass its path."
        )
    return content


def _of_path(path: str) -> Iterator[Picture]:
    if Path(path).is_dir():
        files = list(files_below(Path(path)))
        found = sorted(file for file in files if is_image(file))
        left_out = [file for file in files if is_video(file) or file.suffix.lower() in UNREAD]
        if not found:
            others = f", but {len(left_out)} files such as {left_out[0]}" if left_out else ""
            raise DatasetError(f"The folder {path} holds no images{others}: name one with images, or a file.")
        if left_out:
            logger.warning(
                "The folder %s also holds %d videos or photos of a format that is not read, such as %s, which are left "
                "out: name videos themselves, and convert photos to JPEG or PNG.",
                path,
                len(left_out),
                left_out[0],
            )
        yield from (Picture(str(each), file_name=str(each)) for each in found)
    elif is_video(path):
        for number, pixels in enumerate(frames(path)):
            yield Picture(pixels, file_name=path, frame=number)
    else:
        yield Picture(path, file_name=path)
