"""Checks and repairs of the classes of a split."""

from collections.abc import Sequence
from typing import Any

from align_detr.data.annotation_table import column_of
from align_detr.data.check_images import check_ids
from align_detr.data.findings import Findings
from align_detr.data.values import Id, find_repeated, read_id


def repair_categories(findings: Findings) -> list[dict[str, Any]]:
    """Return the categories with whole ids and names as text, without repetitions and unused namesakes."""
    categories = findings.annotations.categories
    ids = check_ids(findings, "category", categories)
    texts = [row for row, id_ in enumerate(ids) if isinstance(id_, str)]
    findings.add("category-id-mixed", texts if any(isinstance(id_, int) for id_ in ids) else [])
    names = [category.get("name") for category in categories]
    findings.add("category-name-missing", [r for r, name in enumerate(names) if name is None or not str(name).strip()])
    names = [str(name) for name in names]
    repeated = find_repeated(ids)
    same = {row for row, first in repeated if names[row] == names[first]}
    findings.add("category-repeated", sorted(same))
    others = [(row, first) for row, first in repeated if row not in same]
    findings.add("category-id-repeated", [row for row, _ in others], other=names[others[0][1]] if others else "")
    namesakes = [(row, first) for row, first in find_repeated(names) if row not in {row for row, _ in repeated}]
    left_out = same | _leave_out_namesakes(findings, ids, namesakes)
    entries = enumerate(zip(categories, ids, names, strict=True))
    return [{**c, "id": id_, "name": name} for row, (c, id_, name) in entries if row not in left_out]


def _used_ids(findings: Findings) -> set[str]:
    return {str(read_id(value)) for value in column_of(findings.annotations.annotations, "category_id")}


def _leave_out_namesakes(
    findings: Findings, ids: Sequence[Id | None], namesakes: Sequence[tuple[int, int]]
) -> set[int]:
    """Return the unused rows of pairs with one name (Roboflow lists the project as a class); report pairs in use."""
    unused: set[int] = set()
    both: list[tuple[int, int]] = []
    used = _used_ids(findings) if namesakes else set()
    for row, first in namesakes:
        spare = next((r for r in (row, first) if str(ids[r]) not in used and r not in unused), None)
        if spare is None:
            both.append((row, first))
        else:
            unused.add(spare)
    findings.add("category-name-unused", sorted(unused))
    findings.add("category-name-repeated", [row for row, _ in both], other=ids[both[0][1]] if both else "")
    return unused
