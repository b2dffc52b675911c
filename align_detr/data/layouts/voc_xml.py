"""One XML file of Pascal VOC, as the devkit's own and as today's tools write it."""

import math
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from align_detr.errors import DatasetError

_SUPERVISION = "roboflow.ai"  # what supervision writes as <database>; Roboflow itself writes roboflow.com


@dataclass(frozen=True)
class VocObject:
    """An object: class name, box (x, y, width, height) in pixels counted from 0, and whether it is difficult."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool


@dataclass(frozen=True)
class VocFile:
    """The content of an XML file: the image's name and size as it states them ("" and None if not), and the objects."""

    file_name: str
    size: tuple[int, int] | None
    objects: list[VocObject]


def read_xml(path: Path) -> VocFile:
    """Return the content of an XML file.

    In the devkit's files pixels count from 1 and a box includes its last pixel, so that xmin = 1 and xmax = width
    cover the image: 1 is taken off xmin and ymin there, in files of which the <source> or the <folder> names VOC
    2005 to 2012, and in those of supervision (since 0.31), which writes the same. All other tools (labelImg, CVAT,
    Roboflow, Label Studio, datumaro, globox, pylabel) write the edges of the box counted from 0, whatever VOC says:
    from their files nothing is taken off.
    Raise DatasetError for a file that is no such XML, and an object without a name or a box of four finite numbers.
    """
    try:
        root = ET.parse(path).getroot()
    except ET.ParseError as error:
        raise DatasetError(f"{path} is not well-formed XML ({error}): correct or remove the file.") from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}): correct that, or remove the file.") from error
    except (ValueError, LookupError) as error:  # encodings that the parser does not know
        raise DatasetError(f"{path} is in an encoding that is not read ({error}): save it as UTF-8.") from error
    if root.tag != "annotation":
        raise DatasetError(f"{path} holds <{root.tag}>, but Pascal VOC's files hold <annotation>: remove the file.")
    first_pixel = 1 if _counts_from_one(root) else 0
    objects = [
        _read_object(node, f"{path}, object {number}", first_pixel)
        for number, node in enumerate(root.findall("object"), start=1)
    ]
    return VocFile((root.findtext("filename") or "").strip(), _size(root), objects)


def is_voc(path: Path) -> bool:
    """Return whether the file's root element is that of Pascal VOC."""
    try:
        _, node = next(ET.iterparse(path, events=("start",)))
    except (ET.ParseError, StopIteration, OSError):
        return False
    except (ValueError, LookupError):  # an encoding that is not read, as `read_xml` says then
        return b"<annotation>" in path.read_bytes()
    return node.tag == "annotation"


def _counts_from_one(root: ET.Element) -> bool:
    """Return whether the file comes from the devkit's data, or from a tool that counts as it does."""
    database = root.findtext("source/database") or ""
    origin = f"{database} {root.findtext('source/annotation') or ''} {root.findtext('folder') or ''}"
    return bool(re.search(r"VOC20(0[5-9]|1[0-2])\b", origin)) or database.strip() == _SUPERVISION


def _size(root: ET.Element) -> tuple[int, int] | None:
    """Return width and height if the file states them; tools that do not know them write 0."""
    try:
        width, height = (int(float(root.findtext(f"size/{side}") or 0)) for side in ("width", "height"))
    except (ValueError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None


def _read_object(node: ET.Element, where: str, first_pixel: int) -> VocObject:
    name = (node.findtext("name") or "").strip()
    if not name:
        raise DatasetError(f"{where} has no <name>: complete or remove it.")
    texts = [node.findtext(f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax")]
    try:
        x0, y0, x1, y1 = (float(text or "") for text in texts)
    except ValueError as error:
        raise DatasetError(
            f"{where} has no <bndbox> of four numbers (it has {texts}): complete or remove it."
        ) from error
    if not all(map(math.isfinite, (x0, y0, x1, y1))):
        raise DatasetError(f"{where} has a box that is not finite ({texts}): correct or remove it.")
    x0, y0 = x0 - first_pixel, y0 - first_pixel
    difficult = (node.findtext("difficult") or "0").strip().lower() in {"1", "true"}
    return VocObject(name, (x0, y0, x1 - x0, y1 - y0), difficult)
