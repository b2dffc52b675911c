"""Videos, frame by frame, with PyAV, an optional package."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from align_detr.errors import DatasetError, EnvironmentProblem

SUFFIXES = frozenset(
    {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".mts", ".m2ts", ".3gp"}
)


def is_video(path: str | Path) -> bool:
    """Return whether the file's name is that of a video."""
    return Path(path).suffix.lower() in SUFFIXES


def pyav() -> Any:
    """Return PyAV's module; raise EnvironmentProblem where it is not installed."""
    try:
        return import_module("av")
    except ImportError as error:
        raise EnvironmentProblem(
            f"Videos are read with PyAV, which cannot be imported ({error}): pip install 'align_detr[video]'."
        ) from error


def frames(path: str | Path) -> Iterator[np.ndarray]:
    """Yield a video's frames as (H, W, 3) uint8 RGB, turned as they are shown, one at a time.

    Raise DatasetError for a file that is missing, no video, or broken from some frame on; and EnvironmentProblem
    without PyAV.
    """
    av = pyav()
    count = 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DatasetError(f"The file {path} has no pictures: pass a video.")
            container.streams.video[0].thread_type = "AUTO"
            for frame in container.decode(video=0):
                pixels = frame.to_ndarray(format="rgb24")
                turns = round(frame.rotation / 90) % 4
                yield np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels
                count += 1
    except FileNotFoundError as error:
        raise DatasetError(f"The video {path} does not exist: correct its path.") from error
    except (av.error.FFmpegError, OSError) as error:
        where = f" after {count} frames" if count else ""
        raise DatasetError(f"The video {path} cannot be read{where} ({error}): replace the file.") from error


def frame_rate(path: str | Path) -> Fraction:
    """Return a video's frames per second, 25 where the file does not say."""
    with pyav().open(str(path)) as container:
        rate: Fraction | None = container.streams.video[0].average_rate
    return rate or Fraction(25)


class VideoWriter:
    """Writes frames into an MP4 file (H.264 where PyAV has it); use `video_writer`."""

    def __init__(self, container: Any, rate: Fraction) -> None:
        self.container, self.rate = container, rate
        self.stream: Any = None

    def write(self, pixels: np.ndarray) -> None:
        """Append a frame (H, W, 3) uint8 RGB; an odd side grows by a black line, which H.264 needs."""
        av = pyav()
        height, width = pixels.shape[:2]
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)))
        if self.stream is None:
            codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
            self.stream = self.container.add_stream(codec, rate=self.rate)
            self.stream.height, self.stream.width = pixels.shape[:2]
            self.stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        self.container.mux(self.stream.encode(frame))

    def finish(self) -> None:
        """Write what the encoder holds back."""
        if self.stream is not None:
            self.container.mux(self.stream.encode())


@contextmanager
def video_writer(path: Path, rate: Fraction) -> Iterator[VideoWriter]:
    """Yield the writer of a new MP4 file, which is complete at the end."""
    with pyav().open(str(path), mode="w") as container:
        writer = VideoWriter(container, rate)
        yield writer
        writer.finish()
