"""Files that are whole or not there: written beside their place, synced, renamed; their checksums."""

import contextlib
import errno
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from align_detr.errors import EnvironmentProblem

UNFINISHED = ".unfinished"  # suffix of a file that is being written, or was when its process ended
_FULL = (errno.ENOSPC, errno.EDQUOT)
_CHUNK = 2**20  # bytes


def write_file(path: str | os.PathLike[str], write: Callable[[IO[bytes]], object]) -> None:
    """Write a file by `write(file)` under another name, sync it and its folder, and put it into its place.

    A process that ends at any moment leaves the earlier file or the new one, never a part. Raise EnvironmentProblem if
    the disk is full or cannot be written; the earlier file is still there then.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}{UNFINISHED}")
    try:
        with disk_problems(path), open(unfinished, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        with disk_problems(path):
            unfinished.replace(path)
            _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


def remove_unfinished(folder: str | os.PathLike[str]) -> None:
    """Remove what processes that were killed have left half-written in a folder."""
    for path in Path(folder).glob(f".*{UNFINISHED}"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def disk_problems(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise EnvironmentProblem with one sentence in place of an OSError of writing `path`, also if torch hides it."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause = _os_error(error)
        if cause is None:
            raise
        raise EnvironmentProblem(describe_disk(path, cause)) from error


def describe_disk(path: str | os.PathLike[str] | None, error: OSError) -> str:
    """Return the sentence on a file (None: one that is not known) that could not be written."""
    if path is None:
        return "A file of the run cannot be written, as the disk is full: free some space, and go on with --resume."
    if error.errno not in _FULL:
        return f"{path} cannot be written ({error.strerror or error}): correct the folder's rights or its disk."
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(Path(path).parent).free / 2**20
        return (
            f"{path} cannot be written, as the disk is full ({free:.0f} MiB free): free some space, or lower "
            "train.checkpointer.max_to_keep, and go on with --resume; earlier checkpoints are whole."
        )
    return f"{path} cannot be written, as the disk is full: free some space, and go on with --resume."


def is_disk_full(error: OSError) -> bool:
    """Return whether an error of the operating system is that of a full disk or quota."""
    return error.errno in _FULL


def find_damage(path: str | os.PathLike[str], *, require_zip: bool = False) -> str | None:
    """Return what is wrong with a zip file, as torch saves, by the checksum of each of its records; None if nothing.

    PyTorch stores a CRC-32 with each record and does not look at it when it loads. Files in PyTorch's older form, which
    is no zip file, have no checksum; they pass unless `require_zip`.
    """
    path = Path(path)
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return "it does not begin as a checkpoint does" if require_zip or not path.stat().st_size else None
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                with archive.open(info) as record:
                    while record.read(_CHUNK):
                        pass
    except Exception as error:  # damage shows as errors of any kind
        return " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return None


def _os_error(error: BaseException | None) -> OSError | None:
    """Return the OSError that is `error` or led to it, or None."""
    for _ in range(10):
        if error is None or isinstance(error, OSError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _sync_folder(folder: Path) -> None:
    """Write the folder's entries to the disk, where the system can do that."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems refuse it
            os.fsync(handle)
    finally:
        os.close(handle)
