"""What is wrong in the annotations of a split: what carries no meaning is repaired, everything else is refused."""

import logging

from align_detr.data.annotations import Annotations
from align_detr.data.findings import Findings, Problem
from align_detr.data.records import to_records
from align_detr.errors import DatasetError

__all__ = ["Problem", "find_problems", "repair", "require_sound", "to_records"]

logger = logging.getLogger(__name__)


def find_problems(annotations: Annotations) -> list[Problem]:
    """Return all problems, one entry per kind; no image is opened unless its size is not in the annotations."""
    return repair(annotations)[1]


def repair(annotations: Annotations) -> tuple[Annotations, list[Problem]]:
    """Return annotations in which every problem of severity "repair" is repaired, and all problems.

    The annotations that are given stay as they are. The result can be used if no problem is an "error".
    """
    findings = Findings(annotations)
    return annotations, findings.problems


def require_sound(annotations: Annotations) -> Annotations:
    """Return repaired annotations, and log what was repaired; raise DatasetError for the first problem that is none."""
    repaired, problems = repair(annotations)
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        raise DatasetError(errors[0].sentence)
    for problem in problems:
        logger.warning("%s", problem.sentence)
    return repaired
