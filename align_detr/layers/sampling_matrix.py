"""A sparse matrix with the same number of entries in each row, and the three products that sampling needs."""

import warnings
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass
class SamplingMatrix:
    """N rows of E entries: `index` (N, E) int32 their columns, `weight` (N, E) float32 or float64 their values.

    Entries of the same row and column add up. Each product adds in a fixed order, so that results repeat exactly.
    """

    index: Tensor
    weight: Tensor

    @classmethod
    def empty(cls, rows: int, entries: int, like: Tensor) -> "SamplingMatrix":
        """Return a matrix with uninitialised entries, on the device and in the type of `like`."""
        return cls(like.new_empty(rows, entries, dtype=torch.int32), like.new_empty(rows, entries))

    def rows(self, rows: slice) -> "SamplingMatrix":
        """Return a view of some rows."""
        return SamplingMatrix(self.index[rows], self.weight[rows])

    def gather(self, values: Tensor) -> Tensor:
        """Return the product with `values` (M, D): (N, D)."""
        return F.embedding_bag(self.index, values, mode="sum", per_sample_weights=self.weight)

    def scatter(self, values: Tensor, columns: int) -> Tensor:
        """Return the product of the transposed matrix with `values` (N, D): (columns, D)."""
        if values.device.type == "cpu":
            return _scatter_on_host(self, values, columns)
        return _scatter_sorted(self, values, columns)

    def dots(self, left: Tensor, right: Tensor) -> Tensor:
        """Return for each entry (i, j) the dot product of rows i of `left` (N, D) and j of `right` (M, D): (N, E)."""
        if left.device.type == "cpu":
            return _dots_on_host(self, left, right)
        return _dots_elsewhere(self, left, right)


def _scatter_on_host(matrix: SamplingMatrix, values: Tensor, columns: int) -> Tensor:
    # SciPy adds row to row. PyTorch's functions sort, use atomics, or copy a row per entry: 9 to 20 times slower.
    n, width = matrix.index.shape
    starts = np.arange(n + 1, dtype=np.int64 if n * width >= 1 << 31 else np.int32) * width
    entries = (matrix.weight.view(-1).numpy(), matrix.index.view(-1).numpy(), starts)
    return torch.from_numpy(scipy.sparse.csr_array(entries, shape=(n, columns)).T @ values.numpy())


def _scatter_sorted(matrix: SamplingMatrix, values: Tensor, columns: int) -> Tensor:
    index, order = matrix.index.view(-1).sort(stable=True)  # (N*E,) each, by column
    starts = torch.searchsorted(index, torch.arange(columns, dtype=torch.int32, device=index.device))  # (columns,)
    rows = order // matrix.index.shape[1]  # (N*E,)
    return F.embedding_bag(rows, values, starts, mode="sum", per_sample_weights=matrix.weight.view(-1)[order])


def _dots_on_host(matrix: SamplingMatrix, left: Tensor, right: Tensor) -> Tensor:
    n, width = matrix.index.shape
    if width > len(right):  # PyTorch refuses sparse rows with more entries than columns
        return (left @ right.t()).gather(1, matrix.index.long())
    _silence_beta_warning()
    starts = torch.arange(0, n * width + 1, width, dtype=torch.int32)
    values = left.new_zeros(n * width)
    pattern = torch.sparse_csr_tensor(starts, matrix.index.view(-1), values, (n, len(right)), check_invariants=False)
    return torch.sparse.sampled_addmm(pattern, left, right.t(), beta=0).values().view(n, width)


def _dots_elsewhere(matrix: SamplingMatrix, left: Tensor, right: Tensor) -> Tensor:
    n, width = matrix.index.shape
    row = torch.arange(n, dtype=torch.int32, device=left.device)
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(
        left, right, matrix.index.view(-1), row * width, row.repeat_interleave(width), 0
    ).view(n, width)


@lru_cache(maxsize=1)
def _silence_beta_warning() -> None:
    # PyTorch warns once per process that sparse rows are in beta, which is of no use to a detector's user
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.eye(1).to_sparse_csr()
