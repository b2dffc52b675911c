"""The report of a validation: as a table with sentences, and as JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from align_detr.data.findings import Problem
from align_detr.data.validation.cleaning import Cleaned
from align_detr.data.validation.statistics import Statistics

_EXAMPLES = 3  # entries that are named per kind of problem
_ORDER = ("error", "repair", "note")
_CLASSES = 100  # rows of the table of classes


@dataclass(frozen=True)
class Found:
    """A problem, and what its first entries are called."""

    problem: Problem
    examples: Sequence[str]


@dataclass(frozen=True)
class SplitReport:
    """What was found in a split; `statistics` are those of what can be used, None where nothing can."""

    name: str
    source: Path
    found: list[Found]
    cleaned: Cleaned
    statistics: Statistics | None


@dataclass(frozen=True)
class Report:
    """What was found in a data set (`data` as it was named, and its layout), split by split."""

    data: str
    layout: str
    splits: list[SplitReport]

    def count(self, severity: str) -> int:
        """Return how many entries have problems of this severity."""
        return sum(x.problem.count for split in self.splits for x in split.found if x.problem.severity == severity)

    @property
    def usable(self) -> bool:
        """Whether no problem is an error."""
        return not self.count("error")

    def text(self) -> str:
        """Return the tables of splits and classes, one paragraph per problem, and the verdict."""
        parts = [f"Data set {self.data} ({self.layout})", self._table_of_splits(), self._table_of_classes()]
        for severity in _ORDER:
            parts += [
                _paragraph(split.name, found)
                for split in self.splits
                for found in split.found
                if found.problem.severity == severity
            ]
        return "\n\n".join([part for part in parts if part] + [self.verdict])

    @property
    def verdict(self) -> str:
        """The last line: counts, and whether the data can be used."""
        errors, repairs, notes = (self.count(severity) for severity in _ORDER)
        counts = f"Errors: {errors}, repaired on loading: {repairs}, notes: {notes}."
        if errors:
            return f"{counts} Not usable as it is: correct the errors, or write a cleaned copy with --fix OUT."
        return f"{counts} Usable."

    def to_json(self) -> dict[str, Any]:
        """Return the whole report as plain values."""
        return {
            "data": self.data,
            "layout": self.layout,
            "usable": self.usable,
            "splits": {split.name: _split_as_json(split) for split in self.splits},
        }

    def _table_of_splits(self) -> str:
        heads = ["split", "images", "empty", "objects", "crowds", "small", "medium", "large", "per image", "source"]
        rows = []
        for split in self.splits:
            s = split.statistics
            numbers: Sequence[object] = ["?"] * 8
            if s is not None:
                least, median, most = s.per_image
                per_image = f"{least} to {most} (median {median:g})"
                numbers = [s.images, s.empty_images, s.objects, s.crowds, *s.sizes, per_image]
            rows.append([split.name, *numbers, split.source])
        return tabulate(rows, heads, tablefmt="pipe")

    def _table_of_classes(self) -> str:
        counted = [split for split in self.splits if split.statistics is not None]
        counts = {split.name: split.statistics.classes for split in counted if split.statistics is not None}
        names = list(dict.fromkeys(name for classes in counts.values() for name in classes))
        rows = [[name, *(counts[split].get(name, "-") for split in counts)] for name in names]
        more = f"\n({len(names) - _CLASSES} more classes)" if len(names) > _CLASSES else ""
        return tabulate(rows[:_CLASSES], ["class", *counts], tablefmt="pipe") + more if rows else ""


def _paragraph(split: str, found: Found) -> str:
    problem, others = found.problem, found.examples[1:]
    lines = [f"{problem.severity}, {problem.count} in {split} ({problem.kind}): {problem.sentence}"]
    if others:
        more = problem.count - len(found.examples)
        lines.append(f"    also {', '.join(others)}" + (f" and {more} more" if more > 0 else ""))
    return "\n".join(lines)


def _split_as_json(split: SplitReport) -> dict[str, Any]:
    problems = [
        {
            "kind": found.problem.kind,
            "severity": found.problem.severity,
            "count": found.problem.count,
            "sentence": found.problem.sentence,
            "examples": list(found.examples),
        }
        for found in split.found
    ]
    statistics = None if split.statistics is None else vars(split.statistics)
    return {"source": str(split.source), "statistics": statistics, "problems": problems}


def examples_of(names: Iterator[str]) -> list[str]:
    """Return the first few names of a problem's entries."""
    return [name.rstrip(",") for _, name in zip(range(_EXAMPLES), names, strict=False)]
