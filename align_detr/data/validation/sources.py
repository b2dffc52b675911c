"""What `validate` takes: a folder of any layout, a COCO file, or the name of a registered data set."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from detectron2.data import DatasetCatalog

from align_detr.data.annotations import Annotations
from align_detr.data.coco import read_coco
from align_detr.data.layouts.coco_images import locate_images
from align_detr.data.layouts.find import find
from align_detr.data.layouts.shards import is_index
from align_detr.data.registered import read_registered
from align_detr.errors import DatasetError


@dataclass(frozen=True)
class Source:
    """The splits of a data set as their files have them. `numbered_by_name`: training numbers the classes by name."""

    layout: str
    splits: dict[str, Annotations]
    numbered_by_name: bool


def read_sources(data: Sequence[str | Path], layout: str | None, image_root: Path | None) -> Source:
    """Return the splits of one folder, or of several files and registered names, which are one split each.

    layout: as in `find`. image_root: the folder of the images of COCO files, None to search for it. Raise
    DatasetError for what cannot be found or read.
    """
    if len(data) == 1 and (Path(data[0]).is_dir() or _describes(Path(data[0]))):
        folder = find(data[0], layout=layout)
        splits = {name: split.annotations for name, split in folder.splits.items()}
        return Source(folder.layout, splits, numbered_by_name=True)
    splits = {}
    for name in data:
        label = Path(name).stem.removeprefix("instances_")
        label = label if label not in splits else str(name)
        splits[label] = _read_one(str(name), image_root)
    return Source("files" if len(data) > 1 else "file", splits, numbered_by_name=False)


def _describes(path: Path) -> bool:
    """Return whether a file other than a COCO file describes a data set."""
    return path.suffix in (".yaml", ".yml", ".data") or is_index(path)


def _read_one(name: str, image_root: Path | None) -> Annotations:
    path = Path(name).expanduser()
    if name in DatasetCatalog.list():
        return read_registered(name)
    if not path.exists():
        near = get_close_matches(name, DatasetCatalog.list(), n=3, cutoff=0.6)
        remedy = f"did you mean {' or '.join(near)}?" if near else "correct its path or name."
        raise DatasetError(f"{name} is neither a folder, nor a file, nor a registered data set: {remedy}")
    if path.is_dir():
        raise DatasetError(f"{path} is a folder beside other data: validate a folder alone.")
    annotations = read_coco(path, path.parent if image_root is None else image_root)
    return annotations if image_root is not None else locate_images(annotations, path.parent)
