"""Recognition of a data set's layout from its folder."""

from pathlib import Path

from align_detr.data.layouts import coco, voc, yolo
from align_detr.data.layouts.folder import DataFolder, Split
from align_detr.errors import DatasetError

LAYOUTS = {"coco": coco, "voc": voc, "yolo": yolo}


def find(folder: str | Path, *, layout: str | None = None) -> DataFolder:
    """Return the data set in `folder`: its layout and its splits, of which nothing is read yet.

    folder: a folder, or the file that describes the data set: a COCO JSON file, or a data.yaml of YOLO. layout: one
    of LAYOUTS, for a folder that holds more than one.
    Raise DatasetError for a folder that does not exist, holds no layout or several, and for files of one layout that
    stand for the same split.
    """
    root = Path(folder).expanduser()
    if not root.exists():
        raise DatasetError(f"The folder {root} does not exist: pass the folder of a data set.")
    if layout is not None and layout not in LAYOUTS:
        raise DatasetError(f"There is no layout '{layout}': use one of {', '.join(LAYOUTS)}.")
    found = {name: reader.find_splits(root) for name, reader in LAYOUTS.items() if layout in (None, name)}
    found = {name: splits for name, splits in found.items() if splits}
    if not found:
        raise DatasetError(_nothing_found(root, layout))
    if len(found) > 1:
        raise DatasetError(_several_found(root, found))
    ((name, splits),) = found.items()
    return DataFolder(root, name, {split.name: split for split in splits})


def _nothing_found(root: Path, layout: str | None) -> str:
    """Return the sentence for a folder without a data set."""
    if layout is not None:
        return f"{root} holds no data set in the layout '{layout}': {LAYOUTS[layout].SIGNS}."
    holds = ", ".join(sorted(path.name + "/" * path.is_dir() for path in root.iterdir())[:8]) if root.is_dir() else ""
    signs = "; ".join(f"{name}: {reader.SIGNS}" for name, reader in LAYOUTS.items())
    return f"{root} holds no known data set (it has {holds or 'nothing'}): use one of these layouts ({signs})."


def _several_found(root: Path, found: dict[str, list[Split]]) -> str:
    """Return the sentence for a folder with several layouts."""
    each = "; ".join(
        f"{name} ({', '.join(f'{split.name} in {_below(split.source, root)}' for split in splits)})"
        for name, splits in found.items()
    )
    options = " or ".join(f"--layout {name}" for name in found)
    return f"{root} holds several layouts, {each}: choose one with {options} (layout= in Python)."


def _below(path: Path, root: Path) -> str:
    """Return `path` relative to `root`, if it is below it."""
    return path.relative_to(root).as_posix() or "." if path.is_relative_to(root) else str(path)
