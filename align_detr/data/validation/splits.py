"""Checks across the splits of a data set: the same photo twice, and classes that differ."""

from collections.abc import Hashable, Iterator, Sequence

from align_detr.data.findings import Findings
from align_detr.data.validation.images import Photo, image_paths


def check_repeated_photos(names: Sequence[str], splits: Sequence[Findings], photos: Sequence[dict[int, Photo]]) -> None:
    """Add to each split the photos that an earlier split has, and those that it has twice itself.

    Photos that were read are compared by their decoded pixels, so that a copy under another name, or with other
    metadata, is found; where none was read, by their paths.
    """
    first: dict[Hashable, tuple[int, int]] = {}  # what makes a photo the same -> split and row where it came first
    for number, (findings, read) in enumerate(zip(splits, photos, strict=True)):
        again: dict[int, list[tuple[int, int]]] = {}  # split of the earlier one -> (row here, row there)
        paths = image_paths(findings)
        for row, key in _identities(paths, read):
            split, twin = first.setdefault(key, (number, row))
            # one file under several ids of a split is a problem of its annotations
            if split != number or paths[twin] != paths[row]:
                again.setdefault(split, []).append((row, twin))
        for split, pairs in again.items():
            kind = "photo-twice" if split == number else "photo-in-two-splits"
            other = splits[split].describe("images", pairs[0][1])
            findings.add(kind, [row for row, _ in pairs], other=other, split=names[split])


def _identities(paths: dict[int, str], photos: dict[int, Photo]) -> Iterator[tuple[int, Hashable]]:
    """Yield (row, what makes its photo the same as another) of the images whose photo is known."""
    if photos:
        yield from ((row, photo.digest) for row, photo in photos.items() if photo.fault is None)
    else:
        yield from paths.items()


def check_same_classes(names: Sequence[str], splits: Sequence[Findings], *, numbered_by_name: bool) -> None:
    """Add to each later split how its classes differ from those of the first.

    numbered_by_name: the splits are one folder, whose classes training numbers by their names.
    """
    if not splits:
        return
    reference = _class_names(splits[0])
    for findings in splits[1:]:
        found = _class_names(findings)
        if found and found != reference:
            row = next((r for r, (a, b) in enumerate(zip(found, reference, strict=False)) if a != b), 0)
            kind = "classes-by-name" if numbered_by_name else "classes-differ"
            findings.add(kind, [row], split=names[0], difference=_difference(found, reference))


def _difference(found: Sequence[str], reference: Sequence[str]) -> str:
    """Return in words what the first difference between two lists of classes is."""
    here, there = sorted(set(found) - set(reference)), sorted(set(reference) - set(found))
    if not here and not there:
        return f"another order: {_listed(found)} and {_listed(reference)}"
    parts = [f"{_listed(here)} only here"] * bool(here) + [f"{_listed(there)} only there"] * bool(there)
    return ", ".join(parts)


def _class_names(findings: Findings) -> list[str]:
    """Return the names of the categories in the order of their ids, as far as they are sound."""
    sound = [c for c in findings.annotations.categories if isinstance(c, dict) and isinstance(c.get("id"), int | str)]
    return [str(c.get("name")) for c in sorted(sound, key=lambda c: (isinstance(c["id"], str), c["id"]))]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
