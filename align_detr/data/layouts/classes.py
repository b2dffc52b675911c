"""Classes of several splits under common numbers: tools that convert splits apart number each by its own."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from align_detr.data.annotations import Annotations
from align_detr.data.problems import repair
from align_detr.errors import DatasetError

logger = logging.getLogger(__name__)


def common_class_names(splits: Sequence[Annotations]) -> list[str]:
    """Return the names of the classes of all splits: the first split's in its order, then what the others add.

    Roboflow writes the name of the whole data set as category 0, the supercategory of all others: such a heading, if
    no object of any split has it, is no class. A name that one split has twice stays twice: `find_problems` tells.
    """
    headings = set.intersection(*(_headings(split) for split in splits)) if splits else set()
    for heading in sorted(headings):
        logger.info("The category '%s' has no objects and is the supercategory of others: it is no class.", heading)
    names: list[str] = []
    for split in splits:
        known = set(names)
        names += [name for name in split.class_names if name not in known and name not in headings]
    return names


def with_class_names(annotations: Annotations, class_names: Sequence[str]) -> Annotations:
    """Return the annotations with the categories `class_names`, numbered from 1 in this order.

    Raise DatasetError for a category with objects that is not among them. Annotations whose categories are in this
    order already stay as they are.
    """
    if annotations.class_names == list(class_names):
        return annotations
    ids = {name: number for number, name in enumerate(class_names, start=1)}
    used = {annotation.get("category_id") for annotation in annotations.annotations}
    for category in annotations.categories:
        if category["id"] in used and category["name"] not in ids:
            raise DatasetError(
                f"{annotations.source} has objects of the class '{category['name']}', but the classes are "
                f"{', '.join(class_names)}: use data with these classes, or train anew."
            )
    known = {category["id"]: ids.get(category["name"]) for category in annotations.categories}
    renumbered = [
        {**annotation, "category_id": known.get(annotation.get("category_id"), annotation.get("category_id"))}
        for annotation in annotations.annotations
    ]
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    return replace(annotations, annotations=renumbered, categories=categories)


def require_repaired(annotations: Annotations) -> Annotations:
    """Return repaired annotations; raise DatasetError for the first problem that cannot be repaired.

    Nothing is logged: what was repaired is told when the data set is loaded.
    """
    repaired, problems = repair(annotations)
    for problem in problems:
        if problem.severity == "error":
            raise DatasetError(problem.sentence)
    return repaired


def _headings(annotations: Annotations) -> set[str]:
    """Return the names of categories that no object has and that are the supercategory of another category."""
    used = {annotation.get("category_id") for annotation in annotations.annotations}
    above = {category.get("supercategory") for category in annotations.categories if category.get("supercategory")}
    unused = {category["name"] for category in annotations.categories if category["id"] not in used}
    return unused & above
