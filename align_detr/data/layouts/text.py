"""Text files of a data set: lists of images and classes, YAML and label files."""

from pathlib import Path

from align_detr.errors import DatasetError


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8, with or without a byte order mark.

    Raise DatasetError for a file that cannot be read, or is in another encoding.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path} is not in UTF-8 (byte {error.start + 1} is no such text): save it as UTF-8."
        ) from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}): correct that, or remove the file.") from error


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file that are not empty, without spaces around; raise DatasetError as `read_text`."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]
