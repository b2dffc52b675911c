"""Recognition of a data set's layout from its folder."""

from itertools import islice
from pathlib import Path

from align_detr.data.layouts import coco, shards, voc, yolo
from align_detr.data.layouts.folder import DataFolder, Split
from align_detr.errors import DatasetError
from align_detr.image_files import files_below, folders_listed_once

_HEAD, _LOOKED_AT = 1 << 14, 20  # bytes of a file, and files, by which another tool's are recognised
_FOREIGN = {
    (b'"shapes"', b'"imagePath"'): "labelme's own JSON files: convert them with labelme2coco",
    (b"<annotations>",): "CVAT's own XML: export the task as COCO, Pascal VOC or YOLO",
    (b'"completed_by"',): "Label Studio's own JSON: export the project as COCO, Pascal VOC or YOLO",
    (b"filename,width,height,class,xmin",): "a table of boxes: export it as COCO, Pascal VOC or YOLO",
}

LAYOUTS = {"coco": coco, "voc": voc, "yolo": yolo, "shards": shards}


def find(folder: str | Path, *, layout: str | None = None) -> DataFolder:
    """Return the data set in `folder`: its layout and its splits, of which nothing is read yet.

    folder: a folder, or the file that describes the data set: a COCO JSON file, a data.yaml of YOLO, or an index of
    shards. layout: one of LAYOUTS, for a folder that holds more than one.
    Raise DatasetError for a folder that does not exist, holds no layout or several, and for files of one layout that
    stand for the same split.
    """
    root = Path(folder).expanduser()
    if not root.exists():
        raise DatasetError(f"The folder {root} does not exist: pass the folder of a data set.")
    if layout is not None and layout not in LAYOUTS:
        raise DatasetError(f"There is no layout '{layout}': use one of {', '.join(LAYOUTS)}.")
    with folders_listed_once():
        found = {name: reader.find_splits(root) for name, reader in LAYOUTS.items() if layout in (None, name)}
    found = {name: splits for name, splits in found.items() if splits}
    if not found:
        raise DatasetError(_nothing_found(root, layout))
    if len(found) > 1:
        raise DatasetError(_several_found(root, found))
    ((name, splits),) = found.items()
    return DataFolder(root, name, {split.name: split for split in splits})


def _nothing_found(root: Path, layout: str | None) -> str:
    """Return the sentence for a folder, or a file, without a data set."""
    if layout is not None:
        return f"{root} holds no data set in the layout '{layout}': it wants {LAYOUTS[layout].SIGNS}."
    if root.is_file():
        return f"{root} is neither a COCO JSON file nor a data.yaml: pass one of them, or the folder of a data set."
    foreign = _foreign_files(root)
    if foreign is not None:
        return f"{root} holds {foreign}."
    holds = ", ".join(sorted(path.name + "/" * path.is_dir() for path in root.iterdir())[:8])
    signs = "; ".join(f"{name}: {reader.SIGNS}" for name, reader in LAYOUTS.items())
    return f"{root} holds no known data set (it has {holds or 'nothing'}): use one of these layouts ({signs})."


def _foreign_files(root: Path) -> str | None:
    """Return what the files of a known tool are, and how they become a data set; None for others."""
    paths = (path for path in files_below(root) if path.suffix.lower() in {".json", ".xml", ".csv"})
    for path in islice(paths, _LOOKED_AT):
        with path.open("rb") as file:
            head = file.read(_HEAD)
        for marks, text in _FOREIGN.items():
            if all(mark in head for mark in marks):
                return text
    return None


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
