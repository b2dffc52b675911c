"""New folders for converted and cleaned data sets: apart from their source, and complete or not there at all."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from align_detr.errors import DatasetError


def require_apart(folder: Path, sources: Iterable[str | Path]) -> None:
    """Raise DatasetError if `folder` is one of the source folders, or is below or above it; files do not count."""
    new = folder.expanduser().resolve()
    for source in map(Path, sources):
        old = source.expanduser().resolve()
        if old.is_dir() and (new.is_relative_to(old) or old.is_relative_to(new)):
            raise DatasetError(f"{folder} and the data set's folder {source} overlap: name a new folder apart from it.")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder whose content becomes that of `folder` at the end; an error leaves nothing behind.

    `folder` does not exist or is empty. Raise DatasetError for what cannot be written.
    """
    exists = folder.is_dir()
    made = [parent for parent in folder.parents if not parent.exists()]  # the deepest first
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder if exists else folder.parent) as beside:
            content = Path(beside) / "content"  # with the usual rights, which a temporary folder lacks
            content.mkdir()
            yield content
            if exists:  # it may be the working directory, or a link
                for path in content.iterdir():
                    path.rename(folder / path.name)
            else:
                content.rename(folder)
    except (OSError, UnicodeError) as error:
        _remove_empty(made)
        raise DatasetError(f"{folder} cannot be written ({error}): correct that, or name another folder.") from error
    except BaseException:
        _remove_empty(made)
        raise


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
