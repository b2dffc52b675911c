"""Pascal VOC's layout: the devkit's folders, and XML files beside images or in folders of splits."""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from align_detr.data.annotations import Annotations
from align_detr.data.layouts.class_files import listed_classes
from align_detr.data.layouts.folder import Split
from align_detr.data.layouts.images import image_size, with_progress
from align_detr.data.layouts.names import SPLIT_OF_WORD, SPLITS, split_of
from align_detr.data.layouts.pairs import Key, by_key
from align_detr.data.layouts.text import read_lines
from align_detr.data.layouts.voc_xml import VocFile, is_voc, read_xml
from align_detr.errors import DatasetError
from align_detr.image_files import files_below, is_image

logger = logging.getLogger(__name__)

SIGNS = "XML files in Annotations/ or beside the images"


@dataclass(frozen=True)
class Photo:
    """A photo and its XML file, of which one may be missing."""

    image: Path | None
    xml: Path | None


def find_splits(root: Path) -> list[Split]:
    """Return the splits of the Pascal VOC files below `root`, [] without any.

    They come from ImageSets/Main (trainval counts if there is no train), else from folders called train, valid, test.
    Raise DatasetError for two ImageSets, and for two images or two XML files of one name in a split.
    """
    files = list(files_below(root)) if root.is_dir() else []
    xmls = [path for path in files if path.suffix.lower() == ".xml"]
    if not any(is_voc(path) for path in xmls[:20]):
        return []
    labels, images = by_key(xmls, root), by_key(filter(is_image, files), root)
    photos = {key: Photo(images.get(key), labels.get(key)) for key in sorted({*labels, *images})}
    parts = _listed(root, files, photos) or _by_folder(root, photos)
    classes = listed_classes(files)
    return [
        Split(name, parts[name][0], partial(_read, root, parts[name][0], parts[name][1], classes))
        for name in SPLITS
        if name in parts
    ]


def _by_folder(root: Path, photos: dict[Key, Photo]) -> dict[str, tuple[Path, list[Photo]]]:
    """Return the photos by the split that a folder names; those in no such folder are "train"."""
    parts: dict[str, tuple[Path, list[Photo]]] = {}
    for photo in photos.values():
        path = photo.xml or photo.image
        assert path is not None
        name = split_of(path.parent, root) or "train" if path.parent != root else "train"
        parts.setdefault(name, (path.parent, []))[1].append(photo)
    return parts


def _listed(root: Path, files: list[Path], photos: dict[Key, Photo]) -> dict[str, tuple[Path, list[Photo]]]:
    """Return the photos of the lists in ImageSets/Main; {} without such lists."""
    lists = {path.stem.lower(): path for path in files if path.parts[-3:-1] == ("ImageSets", "Main")}
    folders = sorted({path.parent for path in lists.values()})
    if len(folders) > 1:
        raise DatasetError(f"{root} has several ImageSets, {folders[0]} and {folders[1]}: pass the folder of one.")
    lists = {stem: path for stem, path in lists.items() if stem in SPLIT_OF_WORD or stem == "default"}
    if "train" in lists:
        lists.pop("trainval", None)
    by_name = {"/".join(key[-depth:]): photo for key, photo in photos.items() for depth in range(1, len(key) + 1)}
    parts = {}
    for stem, path in lists.items():
        listed = [_photo_of(line, by_name, path.parents[2] / "JPEGImages") for line in read_lines(path)]
        if listed:
            parts[SPLIT_OF_WORD.get(stem, "train")] = (path, listed)
    return parts


def _photo_of(line: str, by_name: dict[str, Photo], folder: Path) -> Photo:
    """Return the photo of a line of ImageSets/Main (its name, and in some lists a number); one that is nowhere is a
    missing JPEG file of `folder`.
    """
    name = line
    if name not in by_name and name.rpartition(" ")[2] in {"-1", "0", "1"}:
        name = name.rpartition(" ")[0].strip()
    return (
        by_name.get(name) or by_name.get(Path(name).with_suffix("").as_posix()) or Photo(folder / f"{name}.jpg", None)
    )


def _read(root: Path, source: Path, photos: list[Photo], classes: list[str] | None) -> Annotations:
    """Return the annotations of the photos; a photo without an XML file has no objects.

    Objects marked difficult become crowd regions: VOC's evaluation does not count them either. Classes without a list
    of their own are in alphabetical order. Raise DatasetError as `read_xml` does.
    """
    images: list[dict[str, Any]] = []
    objects: list[tuple[str, dict[str, Any]]] = []
    where: list[str] = []
    for number, photo in enumerate(with_progress(photos, count=len(photos), title="Pascal VOC"), start=1):
        content = VocFile("", None, []) if photo.xml is None else read_xml(photo.xml)
        image = _image_of(photo, content)
        width, height = content.size or image_size(image)
        name = image.relative_to(root).as_posix() if image.is_relative_to(root) else str(image)
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for index, each in enumerate(content.objects, start=1):
            box = {"id": len(objects) + 1, "image_id": number, "bbox": [*each.box], "iscrowd": int(each.difficult)}
            objects.append((each.name, box))
            where.append(f"object {index} of {photo.xml}")
    _report(source, photos, sum(box["iscrowd"] for _, box in objects))
    names = list(classes or ())
    names += sorted({name for name, _ in objects} - set(names))
    ids = {name: number for number, name in enumerate(names, start=1)}
    return Annotations(
        images=images,
        annotations=[{**box, "category_id": ids[name]} for name, box in objects],
        categories=[{"id": number, "name": name} for name, number in ids.items()],
        image_root=root,
        source=source,
        where=where,
    )


def _image_of(photo: Photo, content: VocFile) -> Path:
    """Return the photo's image; without one of the XML file's name, the one that the XML file names beside it."""
    if photo.image is not None:
        return photo.image
    assert photo.xml is not None
    return photo.xml.parent / (content.file_name or f"{photo.xml.stem}.jpg")


def _report(source: Path, photos: list[Photo], difficult: int) -> None:
    """Log how many photos have no XML file, and how many objects do not count."""
    bare = sum(photo.xml is None for photo in photos)
    if bare:
        logger.warning("%s: %d of %d photos have no XML file and count as without objects.", source, bare, len(photos))
    if difficult:
        logger.info("%s: %d objects marked difficult count as crowd regions, as in VOC's rules.", source, difficult)
