"""Files that list class names, one per line: classes.txt, obj.names, labelmap.txt and others."""

from pathlib import Path

from align_detr.data.layouts.text import read_lines
from align_detr.errors import DatasetError

CLASS_FILES = ("classes.txt", "obj.names", "labels.txt", "labelmap.txt", "predefined_classes.txt", "_darknet.labels")


def listed_classes(files: list[Path]) -> list[str] | None:
    """Return the names in the files' first class list; None without one.

    Raise DatasetError if the lists of several folders differ.
    """
    found = {path: _read(path) for path in files if path.name in CLASS_FILES}
    if not found:
        return None
    first, *others = sorted(found, key=lambda path: (len(path.parts), path))
    for other in others:
        if found[other] != found[first]:
            raise DatasetError(f"{first} and {other} list other classes, or in another order: give both the same.")
    return found[first]


def _read(path: Path) -> list[str]:
    """Return the names of a file; of CVAT's labelmap.txt (name:colour:parts:actions), without its background."""
    lines = read_lines(path)
    if path.name == "labelmap.txt":
        names = [line.split(":")[0].strip() for line in lines if not line.startswith("#")]
        return [name for name in names if name and name != "background"]
    return lines
