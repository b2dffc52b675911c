"""Problems found in the annotations of a split, each with its place, its text and its remedy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from align_detr.data.annotations import Annotations
from align_detr.data.kinds import KINDS, Kind, Severity, Table

_NOUNS = {"images": "image", "annotations": "annotation", "categories": "category"}


@dataclass(frozen=True)
class Problem:
    """All cases of one kind of problem in a split.

    `severity`: "error" (the split is refused), "repair" (repaired when it is loaded, and counted in the log) or "note".
    `where`: the first case, in words. `text` and `remedy` complete its sentence. `rows`: indices of all cases in the
    list `table` of the Annotations that were checked; empty for a problem of the whole list.
    """

    kind: str
    severity: Severity
    where: str
    text: str
    remedy: str
    table: Table
    rows: Sequence[int]

    @property
    def count(self) -> int:
        """Cases, at least 1."""
        return max(1, len(self.rows))

    @property
    def sentence(self) -> str:
        """The first case, how many more there are, and the remedy, as one sentence."""
        more = f" ({self.count - 1} more like it)" if self.count > 1 else ""
        return f"{self.where} {self.text}{more}: {self.remedy}."


class Findings:
    """Problems of one Annotations, collected check by check."""

    kinds: ClassVar[Mapping[str, Kind]] = KINDS

    def __init__(self, annotations: Annotations) -> None:
        self.annotations = annotations
        self.problems: list[Problem] = []
        self._files: dict[object, str] | None = None

    def add(self, kind: str, rows: Sequence[int], column: Sequence[object] | None = None, **words: object) -> None:
        """Add the cases `rows` of a kind of `kinds`; nothing if there are none.

        `column` has {value} of every row of the list, of which the text shows the first case; `words` are its others.
        """
        if not len(rows):
            return
        known = self.kinds[kind]
        where = f"In {self.annotations.source}, {self.describe(known.table, rows[0])}"
        words |= {} if column is None else {"value": column[rows[0]]}
        text, remedy = known.text.format(**words), known.remedy.format(**words)
        self.problems.append(Problem(kind, known.severity, where, text, remedy, known.table, rows))

    def add_whole(self, kind: str) -> None:
        """Add a problem of a kind of `kinds` that a whole list has."""
        known = self.kinds[kind]
        source = str(self.annotations.source)
        self.problems.append(Problem(kind, known.severity, source, known.text, known.remedy, known.table, ()))

    def describe(self, table: Table, row: int) -> str:
        """Return what a sentence calls row `row` of a list: with its id and, for an annotation, its image."""
        if table == "annotations" and self.annotations.where is not None:
            return self.annotations.where[row]
        entry = getattr(self.annotations, table)[row]
        noun = _NOUNS[table]
        if not isinstance(entry, dict):
            return f"entry {row} of the {table} (counted from 0)"
        name = f"{noun} {entry['id']}" if "id" in entry else f"{noun} number {row} (counted from 0)"
        if table == "images":
            return f"{name} ({entry.get('file_name', 'without file_name')})"
        if table == "categories":
            return f"{name} ({entry.get('name', 'without name')})"
        image_id = entry.get("image_id", "?")
        return f"{name} of image {image_id} ({self._file_of(image_id)})"

    def _file_of(self, image_id: object) -> str:
        if self._files is None:
            images = [image for image in self.annotations.images if isinstance(image, dict)]
            self._files = {str(image.get("id")): str(image.get("file_name")) for image in images}
        return self._files.get(str(image_id), "not in the file")
