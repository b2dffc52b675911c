"""The columns of a COCO file, kept beside it for the next start and for all processes of this one.

The cache lies in the folder CACHE_FOLDER beside the annotation file, or below `paths.cache_folder` where that cannot be
written, under a name with a hash of the file's content. It can be deleted at any time.
"""

import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from iopath.common.file_io import file_lock

from align_detr.data.annotations import Annotations
from align_detr.data.records_file import FORMAT, Checked, UnusableFile, open_columns, write_columns
from align_detr.paths import cache_folder

CACHE_FOLDER = ".align_detr_cache"
SMALLEST = 16 << 20
"""Bytes of an annotation file from which its columns are kept: a smaller one is read in less than a second."""

_PIECE = 1 << 20
_OLD = 3600.0  # seconds

logger = logging.getLogger(__name__)


def cached_columns(
    json_file: Path, parse: Callable[[bytes], Annotations], check: Callable[[Annotations], tuple[Checked | None, bool]]
) -> Checked | None:
    """Return the columns of an annotation file: kept ones, or what `check` makes of what `parse` makes of its content.

    `check` also tells whether they follow from the content alone, so that they may be kept. One process at a time makes
    them, while others wait for it. Raise OSError for an annotation file that cannot be read.
    """
    if json_file.stat().st_size < SMALLEST:
        return check(parse(json_file.read_bytes()))[0]
    digest = _hash_file(json_file)
    paths = [folder / f"{json_file.name}.{digest[:32]}.{FORMAT}" for folder in _folders(json_file)]
    if (kept := _first_kept(paths)[0]) is not None:
        return kept
    with _alone(paths):
        kept, refusals = _first_kept(paths)  # of the process that was waited for
        if kept is not None:
            return kept
        for refusal in refusals:
            logger.warning("The cache %s: it is made anew.", refusal)
        content = json_file.read_bytes()
        unchanged = hashlib.sha256(content).hexdigest() == digest
        annotations = parse(content)
        del content
        made, may_keep = check(annotations)
        del annotations
        return (_keep(paths, made, json_file) if made and may_keep and unchanged else None) or made


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _folders(json_file: Path) -> Iterator[Path]:
    """Yield the folder beside an annotation file, and that of the user's cache for it."""
    yield json_file.parent / CACHE_FOLDER
    place = hashlib.sha256(str(json_file.resolve()).encode(errors="surrogateescape")).hexdigest()[:16]
    with suppress(RuntimeError):  # of a user without a home
        yield cache_folder() / "records" / place


def _first_kept(paths: list[Path]) -> tuple[Checked | None, list[str]]:
    """Return the first columns that can be used, None without any, and which files cannot."""
    refusals: list[str] = []
    for path in paths:
        try:
            return open_columns(path), refusals
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, UnusableFile) as error:
            refusals.append(f"{path} cannot be used ({error})")
    return None, refusals


@contextmanager
def _alone(paths: list[Path]) -> Iterator[None]:
    """Keep other processes from making the same, where there are locks; without, each makes it, and none harms."""
    with ExitStack() as stack:
        for path in paths:
            with suppress(Exception):  # of a folder that cannot be written, or a file system without locks
                path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(file_lock(str(path)))
                break
        yield


def _keep(paths: list[Path], made: Checked, json_file: Path) -> Checked | None:
    """Write the columns and return them as a memory map; None where no folder can be written, which is logged."""
    refusals = []
    for path in paths:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_columns(path, made)
            kept = open_columns(path)
        except (OSError, UnusableFile) as error:
            refusals.append(f"{path.parent} ({getattr(error, 'strerror', None) or error})")
            continue
        _remove_older(path, json_file.name)
        if refusals:
            logger.info(
                "What is read of %s is kept in %s, since %s cannot be written.", json_file, path.parent, refusals[0]
            )
        return kept
    logger.warning(
        "What is read of %s cannot be kept for the next start, in %s: make one of them writable, or set "
        "ALIGN_DETR_CACHE to a folder.",
        json_file,
        " or ".join(refusals),
    )
    return None


def _remove_older(path: Path, name: str) -> None:
    """Remove what was kept of an earlier content of the file; a process that has it mapped keeps it.

    A part that is an hour old is of a process that was ended; a younger one may be being written.
    """
    own = re.compile(rf"{re.escape(name)}\.[0-9a-f]{{32}}\.\d+(\.lock|(?P<part>\.\d+\.part))?")
    for other in path.parent.iterdir():
        match = own.fullmatch(other.name)
        if match is None or other in (path, path.with_name(f"{path.name}.lock")):
            continue
        with suppress(OSError):
            if match["part"] is None or other.stat().st_mtime < time.time() - _OLD:
                other.unlink()
