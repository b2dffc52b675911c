"""Files of a folder that are images, by their names."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".gif", ".mpo"}
)
UNREAD = frozenset({".heic", ".heif", ".avif", ".jxl", ".jp2", ".dng", ".cr2", ".nef", ".arw"})
"""Endings of photos that are not read."""


# Files by folder; None outside of `folders_listed_once`.
_listed: ContextVar[dict[Path, list[Path]] | None] = ContextVar("listed", default=None)


@contextmanager
def folders_listed_once() -> Iterator[None]:
    """Keep the list of the files below every folder until the end: that of COCO's takes a second."""
    token = _listed.set({})
    try:
        yield
    finally:
        _listed.reset(token)


def is_image(path: Path) -> bool:
    """Return whether the file's name is that of an image."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def files_below(folder: Path) -> Iterable[Path]:
    """Return all files below `folder`, sorted by path, without hidden ones (macOS writes ._a.jpg beside a.jpg).

    Linked folders count, but for one that leads back to a folder above it.
    """
    kept = _listed.get()
    if kept is None:
        return _walk(folder)
    if folder not in kept:
        kept[folder] = list(_walk(folder))
    return kept[folder]


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder, followlinks=True):
        above = Path(parent).resolve()
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith((".", "__")) and not above.is_relative_to(Path(parent, name).resolve())
        )
        yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))


def images_below(folder: Path) -> list[Path]:
    """Return the image files below `folder`, sorted by path."""
    return sorted(path for path in files_below(folder) if is_image(path))
