"""Image files and the label files that belong to them, whatever folders both are in."""

from collections.abc import Iterable
from pathlib import Path

from align_detr.errors import DatasetError

Key = tuple[str, ...]

# folders that hold the one or the other
SIDES = frozenset({"images", "image", "imgs", "img", "jpegimages", "pics", "photos"}) | frozenset(
    {"labels", "label", "annotations", "annotation", "annots", "xml", "xmls", "txt"}
)
_MASKS = frozenset(
    {"segmentationclass", "segmentationobject", "segmentationclasspng", "segmentationobjectpng", "masks"}
)


def key_of(path: Path, root: Path) -> Key:
    """Return what an image and its label file have in common: folders below `root` and the name without its ending.

    images/train/a.jpg, labels/train/a.txt, train/Annotations/a.xml and train/a.jpg all give ("train", "a").
    """
    folders = path.relative_to(root).parts[:-1] if path.is_relative_to(root) else path.parts[:-1]
    return (*(name for name in folders if name.lower() not in SIDES), path.stem)


def by_key(paths: Iterable[Path], root: Path) -> dict[Key, Path]:
    """Return the files by their keys, without masks; raise DatasetError for two files of one key."""
    found: dict[Key, Path] = {}
    for path in paths:
        if any(part.lower() in _MASKS for part in path.parts[len(root.parts) : -1]):
            continue
        key = key_of(path, root)
        if key in found:
            raise DatasetError(
                f"{found[key]} and {path} would share one label file, as their names differ in folder or ending only: "
                "rename one of them, or pass the folder of one of them."
            )
        found[key] = path
    return found
