"""What YOLO's data.yaml, or Darknet's obj.data, says of a data set: class names and where the images are."""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml

from align_detr.data.layouts.names import SPLIT_OF_WORD
from align_detr.data.layouts.text import read_lines, read_text
from align_detr.errors import DatasetError
from align_detr.image_files import images_below

logger = logging.getLogger(__name__)

MOST_UNNAMED = 10_000
"""Classes without names up to which their numbers are believed."""


@dataclass
class YoloConfig:
    """Class names by index (None: the file has none), image files by split, and whether boxes have key points."""

    source: Path
    names: dict[int, str] | None
    images: dict[str, list[Path]] = field(default_factory=dict)
    keypoints: bool = False


def read_config(path: Path) -> YoloConfig:
    """Return the content of a data.yaml or obj.data.

    The images of a split are a folder, a list of folders, or a text file with one image per line. They are looked for
    relative to `path:`, to the file, and without a leading "../", which Roboflow writes; absolute ones of another
    machine by their end. A validation set that is the
    training set, as pylabel writes it, is none.
    Raise DatasetError for a file that cannot be read, a training set that is not found, and names of another form.
    """
    content = _parse(path)
    config = YoloConfig(path, _names(path, content), keypoints="kpt_shape" in content)
    places = {SPLIT_OF_WORD[key]: value for key, value in content.items() if key in SPLIT_OF_WORD and value}
    if places.get("val") is not None and places.get("val") == places.get("train"):
        logger.warning("%s names the same images for training and validation: they are divided instead.", path)
        places.pop("val")
    for split, value in places.items():
        images = _images(path, content, value)
        if images:
            config.images[split] = images
        elif split == "train":
            raise DatasetError(
                f"{path} has {split}: {value}, where there are no images (looked for in "
                f"{', '.join(map(str, _candidates(path, content, _as_list(value)[0])[:3]))}): correct the path."
            )
        else:
            logger.warning(
                "%s has %s: %s, where there are no images: it counts as no %s split.", path, split, value, split
            )
    return config


def is_config(path: Path) -> bool:
    """Return whether the file is YAML with class names, or an obj.data."""
    if path.name.endswith(".data"):
        return True
    try:
        content = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, ValueError, DatasetError):
        return path.stem in {"data", "dataset"}  # its fault is told when it is read
    return isinstance(content, dict) and bool({"names", "nc"} & set(content))


def _parse(path: Path) -> dict[str, Any]:
    text = read_text(path)
    if path.name.endswith(".data"):
        pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
        return {key.strip(): value.strip() for key, _, value in pairs}
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible date
        raise DatasetError(f"{path} cannot be read ({' '.join(str(error).split())}): correct the file.") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{path} has no keys such as train and names: correct the file.")
    return content


def _names(path: Path, content: dict[str, Any]) -> dict[int, str] | None:
    """Return the class names: a list, a dictionary by index, or the name of a file with one per line."""
    names, count = content.get("names"), content.get("nc", content.get("classes"))
    if isinstance(names, str):
        found = next((place for place in _candidates(path, content, names) if os.path.isfile(place)), None)
        if found is None:
            raise DatasetError(f"{path} has names: {names}, a file that does not exist: correct the path.")
        names = read_lines(found)
    if names is None:
        return None if count is None else {index: str(index) for index in range(_count(path, count))}
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(str(key).isdecimal() for key in names):
        raise DatasetError(f"{path} has names that are neither a list nor numbered from 0: correct the file.")
    for index, name in names.items():
        if name is None or isinstance(name, bool | list | dict):
            raise DatasetError(
                f"{path} has a class name, number {index}, that YAML reads as {name}: quote it, as in 'yes', 'no', "
                "'on', 'off' or '~'."
            )
    if isinstance(count, int) and count != len(names):
        raise DatasetError(f"{path} has nc: {count}, but {len(names)} names: correct one of the two.")
    return {int(key): str(name) for key, name in sorted(names.items(), key=lambda item: int(item[0]))}


def _count(path: Path, count: Any) -> int:
    """Return the number of classes that the file states without names; raise DatasetError if it is none."""
    if not str(count).isdecimal() or int(count) > MOST_UNNAMED:
        raise DatasetError(
            f"{path} has nc: {count}, which is no number of classes up to {MOST_UNNAMED}: correct it, or list names."
        )
    return int(count)


def _as_list(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]


def _images(path: Path, content: dict[str, Any], value: Any) -> list[Path]:
    """Return the images of a split, [] if none of its places exists; raise DatasetError if only some do."""
    found: list[list[Path]] = []
    for text in _as_list(value):
        place = next((place for place in _candidates(path, content, text) if os.path.exists(place)), None)
        if place is None:
            found.append([])
        elif place.is_dir():
            found.append(images_below(place))
        else:
            found.append([_listed(line, place, path.parent) for line in read_lines(place)])
    if any(found) and not all(found):
        missing = _as_list(value)[found.index([])]
        raise DatasetError(f"{path} names {missing}, where there are no images: correct or remove the path.")
    return [image for images in found for image in images]


def _listed(line: str, place: Path, root: Path) -> Path:
    """Return the image of a line of a list, relative to the list, the data set or, for Darknet, data/ above it."""
    tails = [line, line.removeprefix("./"), line.removeprefix("data/"), *_ends(line)]
    options = [folder / tail for tail in tails for folder in (place.parent, root, root.parent)]
    return next((option for option in options if os.path.isfile(option)), options[0])


def _candidates(path: Path, content: dict[str, Any], text: str) -> list[Path]:
    """Return the places that a path in the file may mean, the most usual first."""
    base = Path(str(content.get("path") or "")).expanduser()
    bases = [path.parent / base, path.parent, base, path.parent.parent / base, path.parent / base.name]
    tails = [text]
    while tails[-1].startswith("../"):
        tails.append(tails[-1].removeprefix("../"))
    tails += [text.removeprefix("data/")]
    ends = [end for end in _ends(text) if "/" in end or end.endswith(".txt")]  # a folder's name alone may be another's
    return list(dict.fromkeys(folder / tail for tail in tails + ends for folder in bases))


def _ends(text: str) -> list[str]:
    """Return the ends of an absolute path, as another machine's (also Windows'), the longest first; [] of others."""
    path = PureWindowsPath(text)  # splits at both kinds of slash
    return ["/".join(path.parts[first:]) for first in range(1, len(path.parts))] if path.root else []
