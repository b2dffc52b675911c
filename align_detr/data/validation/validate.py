"""`validate` and `fix`: the checks in their order."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from align_detr.data.annotations import Annotations
from align_detr.data.coco import collection_paused
from align_detr.data.findings import Findings, Problem
from align_detr.data.kinds import KINDS
from align_detr.data.layouts.classes import common_class_names, with_class_names
from align_detr.data.new_folder import require_apart
from align_detr.data.validation.cleaning import Change, Cleaned, clean, without_errors, write_clean
from align_detr.data.validation.images import check_photos, read_photos
from align_detr.data.validation.kinds import VALIDATION_KINDS
from align_detr.data.validation.report import Found, Report, SplitReport, examples_of
from align_detr.data.validation.sources import read_sources
from align_detr.data.validation.splits import check_repeated_photos, check_same_classes
from align_detr.data.validation.statistics import statistics_of
from align_detr.errors import DatasetError


class _FileFindings(Findings):
    """Findings of the kinds that validation adds."""

    kinds = {**KINDS, **VALIDATION_KINDS}


@collection_paused()
def validate(
    data: str | Path | Sequence[str | Path],
    *,
    open_images: bool = True,
    layout: str | None = None,
    image_root: str | Path | None = None,
    queries: int = 100,
) -> Report:
    """Return all that is wrong with a data set, and what it holds.

    data: a folder of any layout, a COCO file, a registered name, or several files and names, one split each.
    open_images: decode every image, too; without it, no image is looked at. layout: as in `find`. image_root: the
    folder of a COCO file's images, where it is not found from the file. queries: how many objects a detector can find
    in an image.
    Raise DatasetError for data that cannot be read at all.
    """
    several = [data] if isinstance(data, str | Path) else list(data)
    source = read_sources(several, layout, None if image_root is None else Path(image_root))
    names = list(source.splits)
    cleaned = [clean(annotations) for annotations in source.splits.values()]
    findings = [_FileFindings(part.annotations) for part in cleaned]
    photos = [read_photos(f, name) if open_images else {} for f, name in zip(findings, names, strict=True)]
    for found, read in zip(findings, photos, strict=True):
        check_photos(found, read)
    check_repeated_photos(names, findings, photos)
    check_same_classes(names, findings, numbered_by_name=source.numbered_by_name)
    splits = []
    for (name, given), part, found in zip(source.splits.items(), cleaned, findings, strict=True):
        if part.obstacle is None:
            _check_objects(name, found, queries)
        statistics = statistics_of(part.annotations) if part.obstacle is None else None
        listed = _with_examples(Findings(given), part.problems) + _with_examples(found, found.problems)
        splits.append(SplitReport(name, given.source, listed, part, statistics))
    return Report(", ".join(map(str, several)), source.layout, splits)


def fix(report: Report, folder: str | Path) -> dict[str, list[Change]]:
    """Write a cleaned copy of the validated data in COCO's form into the new `folder`; return what was changed.

    Nothing of the source is touched, and the images stay where they are. Raise DatasetError for a folder that exists,
    overlaps that of the data or cannot be written, and for an error that only a person can correct.
    """
    folder = Path(folder).expanduser()
    require_apart(folder, [report.data])
    if folder.exists():
        raise DatasetError(f"{folder} exists: name a new folder for the cleaned copy.")
    parts = {split.name: _without_file_errors(split) for split in report.splits}
    class_names = common_class_names([part.annotations for part in parts.values()])
    copies = {name: (with_class_names(part.annotations, class_names), part.changes) for name, part in parts.items()}
    write_clean(copies, folder)
    return {name: changes for name, (_, changes) in copies.items()}


def _without_file_errors(split: SplitReport) -> Cleaned:
    """Return the split without what is wrong in its image files."""
    if split.cleaned.obstacle is not None:
        sentence = split.cleaned.obstacle.sentence
        raise DatasetError(f"No copy was written, since this is for a person to decide: {sentence}")
    of_files = [found.problem for found in split.found if found.problem.kind in VALIDATION_KINDS]
    errors = [problem for problem in of_files if problem.severity == "error" and problem.table == "images"]
    annotations, removed = without_errors(split.cleaned.annotations, errors)
    if not annotations.images:
        raise DatasetError(
            f"No copy was written, since no image of {split.source} can be used: {errors[0].sentence if errors else ''}"
        )
    return replace(split.cleaned, annotations=annotations, changes=[*split.cleaned.changes, *removed])


def _check_objects(name: str, findings: Findings, queries: int) -> None:
    """Add the images with more objects than queries, the fullest first, and a training split without objects."""
    annotations: Annotations = findings.annotations
    objects = Counter(a["image_id"] for a in annotations.annotations if not a.get("iscrowd", 0))
    counts = {row: objects[image["id"]] for row, image in enumerate(annotations.images)}
    if name.startswith("train") and not sum(objects.values()):
        findings.add_whole("object-none")
    rows = sorted((row for row, count in counts.items() if count > queries), key=lambda row: -counts[row])
    findings.add("objects-beyond-queries", rows, count=counts[rows[0]] if rows else 0, queries=queries)


def _with_examples(findings: Findings, problems: Sequence[Problem]) -> list[Found]:
    return [Found(p, examples_of(findings.describe(p.table, row) for row in p.rows)) for p in problems]
