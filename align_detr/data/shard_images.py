"""Images that lie in the tar files of a data set in shards: their names in records, and the reading of their bytes.

Such a name is SHARD.tar/MEMBER@OFFSET+SIZE/NAME: the member's name in the tar file, the place and number of its bytes
there, and the image's name in the data set that the shards were written from. With them an image is one seek and one
read, so that its order does not depend on that of the shards. SHARD may be a URL.
"""

import os
import re
import tarfile
import time
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from detectron2.utils.file_io import PathManager

from align_detr.errors import DatasetError

_NAME = re.compile(r"(?P<shard>.+\.tar)/(?P<member>.+?)@(?P<offset>\d+)\+(?P<size>\d+)/(?P<name>.+)", re.DOTALL)
_TRIES = 5  # to read from a URL; the waits between them double
_WAIT = 1.0  # seconds
_PACKAGES = "align_detr[shards] for http and https, s3fs for s3, gcsfs for gs"


def name_in_shard(shard: str, member: str, offset: int, size: int, name: str) -> str:
    """Return the name of an image in the tar file `shard` (a path or URL)."""
    return f"{shard}/{member}@{offset}+{size}/{name}"


def name_of_image(file_name: str) -> str:
    """Return what an image is called without the shard that it lies in; the name itself of an image in no shard."""
    match = _NAME.fullmatch(file_name)
    return match["name"] if match else file_name


def join_image(root: str | os.PathLike[str], file_name: str) -> str:
    """Return the path of an image whose name is relative to `root`; absolute paths and URLs stay as they are."""
    return file_name if is_url(file_name) else os.path.join(root, file_name)


def is_url(text: str) -> bool:
    """Return whether a text begins as a URL does."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None


def open_image(path: str | os.PathLike[str]) -> BinaryIO:
    """Open an image file, or an image in a shard, for reading.

    Raise DatasetError for a shard that is missing, cannot be read or holds another file at that place, and for a URL
    whose package is not installed. A file that is no shard raises what `open` does.
    """
    match = _NAME.fullmatch(os.fspath(path))
    if match is None:
        return PathManager.open(os.fspath(path), "rb")
    shard, member, offset, size = match["shard"], match["member"], int(match["offset"]), int(match["size"])
    return BytesIO(_read_member(shard, member, offset, size))


def _read_member(shard: str, member: str, offset: int, size: int) -> bytes:
    """Return the bytes of a member, after a look at its header, which lies before them."""
    start, count = offset - tarfile.BLOCKSIZE, tarfile.BLOCKSIZE + size
    try:
        content = _read_url(shard, start, count) if is_url(shard) else _read_file(shard, start, count)
    except FileNotFoundError as error:
        raise DatasetError(
            f"The shard {shard} with {member} does not exist: complete the shards, or write them anew."
        ) from error
    except OSError as error:
        raise DatasetError(
            f"{member} of the shard {shard} cannot be read ({error}): check disk and network."
        ) from error
    if is_url(shard) and len(content) > count:
        raise DatasetError(
            f"The server of the shard {shard} has sent {len(content)} bytes in place of {count}: use one that serves "
            "ranges of bytes."
        )
    if len(content) != count or not _is_header(content[: tarfile.BLOCKSIZE], member, size):
        raise DatasetError(
            f"The shard {shard} has no {member} of {size} bytes at byte {offset}, where its index has it: copy shards "
            "and index again, or write them anew."
        )
    return content[tarfile.BLOCKSIZE :]


def _read_file(shard: str, start: int, count: int) -> bytes:
    with Path(shard).open("rb") as file:
        file.seek(start)
        return file.read(count)


def _read_url(shard: str, start: int, count: int) -> bytes:
    """Return a range of bytes of a remote file; a network that fails for seconds does not end a training of days."""
    try:
        from fsspec.core import url_to_fs

        system, path = url_to_fs(shard)
    except (ImportError, ValueError) as error:  # ValueError: a protocol that fsspec does not know
        raise DatasetError(f"The shard {shard} cannot be opened ({error}): pip install {_PACKAGES}.") from error
    for number in range(_TRIES):
        try:
            return system.cat_file(path, start=start, end=start + count)
        except FileNotFoundError:
            raise
        except Exception as error:  # each protocol's package has errors of its own
            if number == _TRIES - 1:
                raise OSError(f"{type(error).__name__}: {error}") from error
            time.sleep(_WAIT * 2**number)
    raise AssertionError("unreachable")


def _is_header(block: bytes, member: str, size: int) -> bool:
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return header.name == member and header.size == size
