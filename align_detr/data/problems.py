"""What is wrong in the annotations of a split: what carries no meaning is repaired, everything else is refused."""

import logging
from dataclasses import replace

from align_detr.data.annotation_table import AnnotationTable
from align_detr.data.annotations import Annotations
from align_detr.data.check_categories import repair_categories
from align_detr.data.check_images import repair_images
from align_detr.data.check_objects import repair_objects
from align_detr.data.findings import Findings, Problem
from align_detr.data.records import to_records
from align_detr.errors import DatasetError

__all__ = ["Problem", "find_problems", "repair", "require_sound", "to_records"]

COUNTED = {"box-empty", "category-unused"}
"""Kinds that the line on a loaded data set counts."""
_ENTRIES = {
    "images": "image-not-an-object",
    "categories": "category-not-an-object",
    "annotations": "annotation-not-an-object",
}

logger = logging.getLogger(__name__)


def find_problems(annotations: Annotations) -> list[Problem]:
    """Return all problems, one entry per kind; no image is opened unless its size is not in the annotations."""
    return repair(annotations)[1]


def repair(annotations: Annotations) -> tuple[Annotations, list[Problem]]:
    """Return annotations in which every problem of severity "repair" is repaired, and all problems.

    The annotations that are given stay as they are. The result can be used if no problem is an "error".
    """
    findings = Findings(annotations)
    for table, kind in (("images", "image-none"), ("categories", "category-none")):
        if not getattr(annotations, table):
            findings.add_whole(kind)
    for table, kind in _ENTRIES.items():
        entries = getattr(annotations, table)
        if not isinstance(entries, AnnotationTable):
            findings.add(kind, [row for row, entry in enumerate(entries) if not isinstance(entry, dict)])
    if findings.problems:  # little else can be read
        return annotations, findings.problems
    images = repair_images(findings)
    categories = repair_categories(findings)
    objects = repair_objects(findings, images, categories)
    return replace(annotations, images=images, annotations=objects, categories=categories), findings.problems


def require_sound(annotations: Annotations) -> Annotations:
    """Return repaired annotations, and log what was repaired or is doubtful.

    Raise DatasetError as `check_sound` does.
    """
    repaired, problems = check_sound(annotations)
    for problem in problems:
        logger.warning("%s", problem.sentence)
    return repaired


def check_sound(annotations: Annotations) -> tuple[Annotations, list[Problem]]:
    """Return repaired annotations, and the problems that are repaired or doubtful without those that a line counts.

    Raise DatasetError for the first problem that has to be corrected by hand, or if there are no images or categories.
    """
    repaired, problems = repair(annotations)
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        others = f" (and {len(errors) - 1} other kinds of faults)" if len(errors) > 1 else ""
        raise DatasetError(f"{errors[0].sentence[:-1]}{others}.")
    return repaired, [problem for problem in problems if problem.kind not in COUNTED]
