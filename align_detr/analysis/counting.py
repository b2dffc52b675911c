"""Numbers of detections or objects per group or so far, for any number of copies of each image."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_detr.analysis.tables import Integers


class GroupCounts:
    """Number of rows in each group where every image is drawn as often as a call says.

    Rows are sorted once, so that a call is one pass over them.
    """

    def __init__(self, image: Integers, group: Integers, num_groups: int) -> None:
        """Sort rows of `image` (N,) by `group` (N,), each from 0 to `num_groups` - 1."""
        order = np.argsort(group, kind="stable")
        ordered = group[order]
        begins = np.r_[True, ordered[1:] != ordered[:-1]] if len(ordered) else np.zeros(0, dtype=bool)
        self._image = image[order].astype(np.int32)
        self._starts = np.flatnonzero(begins)
        self._present = ordered[begins]
        self._num_groups = num_groups

    def __call__(self, copies: Integers) -> Integers:
        """Return the numbers (`num_groups`,) with `copies` (I,) of each image."""
        counts = np.zeros(self._num_groups, dtype=np.int64)
        if len(self._starts):
            drawn = np.take(copies.astype(np.int32), self._image)
            counts[self._present] = np.add.reduceat(drawn, self._starts)
        return counts


def sums_in_class(values: NDArray[Any], first: Integers) -> NDArray[Any]:
    """Return the running sum of `values` (N,), begun anew at the `first` entry (N,) of each entry's class."""
    sums = np.zeros(len(values) + 1, dtype=values.dtype)
    np.cumsum(values, out=sums[1:])
    return sums[1:] - sums[first]
