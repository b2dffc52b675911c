"""Columns of ground truth and detections."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

ImageId = int | str
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Objects:
    """Objects of a data set, crowd regions among them.

    `image` (G,) and `label` (G,): indices of image and class. `box` (G, 4): x, y, width, height in pixels. `area` (G,)
    in pixels. `crowd` (G,): whether a region stands for several objects.
    """

    image: Integers
    label: Integers
    box: Floats
    area: Floats
    crowd: Flags

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True)
class Truth:
    """Images, classes and objects of a data set.

    `image_ids` (I entries, sorted) and `category_ids` (K entries, sorted) are the source's; `file_names` of the images
    may be empty texts.
    """

    image_ids: Sequence[ImageId]
    file_names: Sequence[str]
    category_ids: Sequence[int]
    class_names: Sequence[str]
    objects: Objects

    @property
    def num_images(self) -> int:
        """I."""
        return len(self.image_ids)

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.category_ids)


@dataclass(frozen=True)
class Detections:
    """Detections of a data set, sorted by class, falling score, image and entry: an index is a priority.

    `image` (D,) and `label` (D,): indices of image and class. `score` (D,). `box` (D, 4): x, y, width, height in
    pixels. `entry` (D,): place in the source, from 0.
    """

    image: Integers
    label: Integers
    score: Floats
    box: Floats
    entry: Integers

    def __len__(self) -> int:
        return len(self.image)

    @cached_property
    def rank_in_class(self) -> Integers:
        """How many detections of its image and class come before each (D,)."""
        return rank_in_groups(self.label * (self.image.max(initial=0) + 1) + self.image)

    def with_scores(self, score: Floats) -> tuple["Detections", Integers]:
        """Return the detections with other scores, sorted by them, and the former index of each."""
        order = _priority(self.label, score, self.image, self.entry)
        image, label, entry = self.image[order], self.label[order], self.entry[order]
        return Detections(image, label, score[order], self.box[order], entry), order


def sort_detections(image: ArrayLike, label: ArrayLike, score: ArrayLike, box: ArrayLike) -> Detections:
    """Return the detections of columns in the order of their source."""
    images, labels = np.asarray(image, dtype=np.int64), np.asarray(label, dtype=np.int64)
    scores, boxes = np.asarray(score, dtype=np.float64), np.asarray(box, dtype=np.float64).reshape(-1, 4)
    order = _priority(labels, scores, images, np.arange(len(images)))
    return Detections(images[order], labels[order], scores[order], boxes[order], order)


def make_objects(
    image: ArrayLike, label: ArrayLike, box: ArrayLike, area: ArrayLike, crowd: ArrayLike | None = None
) -> Objects:
    """Return the objects of columns; none is a crowd without `crowd`."""
    images = np.asarray(image, dtype=np.int64)
    return Objects(
        image=images,
        label=np.asarray(label, dtype=np.int64),
        box=np.asarray(box, dtype=np.float64).reshape(-1, 4),
        area=np.asarray(area, dtype=np.float64),
        crowd=np.zeros(len(images), dtype=bool) if crowd is None else np.asarray(crowd, dtype=bool),
    )


def rank_in_groups(groups: NDArray[Any]) -> Integers:
    """Return how many equal entries of `groups` stand before each entry."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.zeros(0, np.int64)
    counts = np.diff(np.r_[starts, len(ordered)])
    ranks = np.empty(len(ordered), dtype=np.int64)
    ranks[order] = np.arange(len(ordered)) - np.repeat(starts, counts)
    return ranks


def first_largest(values: Floats, groups: Integers) -> Integers:
    """Return the index of the largest of `values` in each group, the first of several; `groups` is sorted."""
    if not len(values):
        return np.zeros(0, dtype=np.int64)
    begins = np.r_[True, groups[1:] != groups[:-1]]
    largest = np.maximum.reduceat(values, np.flatnonzero(begins))
    found = np.flatnonzero(values == largest[np.cumsum(begins) - 1])
    of = groups[found]
    return found[np.r_[True, of[1:] != of[:-1]]]


def _priority(label: Integers, score: Floats, image: Integers, entry: Integers) -> Integers:
    return np.lexsort((entry, image, -score, label))
