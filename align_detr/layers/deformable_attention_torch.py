"""Multi-scale deformable attention in plain PyTorch, for any device.

Bilinear sampling with given weights is one sparse matrix: one row per (image, query, head), one column per (image,
token, head), and four entries, the corners, per sampling point. Forward multiplies it with the values; the gradient of
the values is a product with its transpose; the gradients of its entries are dot products of rows. Unlike `grid_sample`,
this stores nothing of the size points x channels. The backward pass computes the entries again instead of keeping them.
Results repeat exactly.

The matrix is sparse for few tokens, too: at 336 tokens a dense one takes longer to multiply.

Letters beside those of the library: N rows, K = levels x points of a row, D channels of a head.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from align_detr.layers.sampling_matrix import SamplingMatrix

# Entries computed at once: few enough for the cache of a core; on other devices, enough to fill them.
ENTRIES_ON_HOST = 1 << 18
ENTRIES_ELSEWHERE = 1 << 24


@dataclass
class Levels:
    """Sizes and first tokens of the levels, repeated per sampling point; an axis of 2 is in the order (x, y).

    `size` (2, 1, K) in tokens; `last` (2, 1, K): the largest first tap, 0 for a level one token wide; `second`
    (2, 1, K): 1, or 0 if there is no second tap; `start` (K,) int32: the level's first token; `corners`, four of (K,)
    int32: tokens from the first corner to each, in the order (y, x) = 00, 01, 10, 11; `thin`: whether a level is one
    token wide or high.
    """

    size: Tensor
    last: Tensor
    second: Tensor
    start: Tensor
    corners: tuple[Tensor, ...]
    thin: bool

    @classmethod
    def of(cls, shapes: Sequence[tuple[int, int]], points: int, like: Tensor) -> "Levels":
        """Return the levels of `shapes` (height, width), on the device and in the type of `like`."""
        columns, start = [], 0
        for height, width in shapes:
            right, down = int(width > 1), width if height > 1 else 0
            sizes = [width, height, max(width - 2, 0), max(height - 2, 0), int(width > 1), int(height > 1)]
            columns.append([*sizes, start, 0, right, down, down + right])
            start += height * width
        table = torch.tensor(columns, dtype=torch.int32).t().repeat_interleave(points, dim=1)  # (11, K)
        table = table.to(like.device, non_blocking=True)
        size, last, second = table[:6].to(like.dtype).view(3, 2, 1, -1)
        return cls(size, last, second, table[6], table[7:].unbind(), any(1 in shape for shape in shapes))


@dataclass
class Taps:
    """Bilinear taps of N rows: an entry is the product of a point's weight and its corner's two bilinear weights.

    `weights` (N, K) of the sampling points; `along` (2, 2, N, K): the bilinear weight of [tap, axis], axes in the order
    (x, y); `fraction` (2, N, K): the position relative to the first tap, in tokens.
    """

    levels: Levels
    weights: Tensor
    along: Tensor
    fraction: Tensor

    @classmethod
    def of(
        cls, levels: Levels, heads: int, column: Tensor, locations: Tensor, weights: Tensor, into: SamplingMatrix
    ) -> "Taps":
        """Compute the taps of locations (N, K, 2) with weights (N, K), and write their entries to `into`.

        `column` (N, 1) int32 is the column of each row's first token; the next token is `heads` columns further.
        """
        n, k = weights.shape
        position = weights.new_empty(2, n, k)  # in tokens; whole numbers are token centres
        torch.mul(locations.permute(2, 0, 1), levels.size, out=position).sub_(0.5)
        # Both taps lie inside the level. A tap more than one token away has weight 0, so that the zeros outside the
        # level need no mask.
        first = torch.clamp(position, torch.zeros_like(levels.last), levels.last).floor_()  # (2, N, K)
        index = torch.addcmul(first[0], first[1], levels.size[0]).to(torch.int32)  # (N, K)
        index.clamp_(min=0)  # NaN alone is outside; its weight carries it to the output
        index.add_(levels.start).mul_(heads).add_(column)
        fraction = position.sub_(first)
        along = weights.new_empty(2, 2, n, k)
        torch.sub(1, fraction.abs(), out=along[0])
        torch.sub(1, (fraction - 1).abs_(), out=along[1])
        along.clamp_(min=0)
        if levels.thin:
            along[1] *= levels.second
        (x0, y0), (x1, y1) = along
        upper, lower = y0 * weights, y1 * weights  # (N, K)
        for c, (x, y) in enumerate([(x0, upper), (x1, upper), (x0, lower), (x1, lower)]):
            torch.mul(x, y, out=into.weight.view(n, 4, k)[:, c])
            torch.add(index, levels.corners[c] * heads, out=into.index.view(n, 4, k)[:, c])
        return cls(levels, weights, along, fraction)

    def gradients(self, entries: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of locations (2, N, K) and weights (N, K) from those of the entries (N, 4K).

        At a token's centre the slope is the one to the right, as in `grid_sample`.
        """
        e00, e01, e10, e11 = entries.unflatten(1, (4, -1)).unbind(1)  # (N, K) each
        (x0, y0), (x1, y1) = self.along
        upper, lower = (x0 * e00).addcmul_(x1, e01), (x0 * e10).addcmul_(x1, e11)
        left, right = (y0 * e00).addcmul_(y1, e10), (y0 * e01).addcmul_(y1, e11)
        cell = self.fraction.floor()
        before, inside, after = ((cell == at).to(cell.dtype) for at in (-1, 0, 1))
        slope0, slope1 = before.sub_(inside), inside - after  # of the taps' weights: (2, N, K)
        if self.levels.thin:
            slope1 *= self.levels.second
        locations = slope0 * torch.stack([left, upper])
        locations[0].addcmul_(slope1[0], right)
        locations[1].addcmul_(slope1[1], lower)
        return locations.mul_(self.levels.size).mul_(self.weights), (y0 * upper).addcmul_(y1, lower)


class Batch:
    """Arguments of `sample`, in groups of images, and their rows in parts of few enough entries."""

    def __init__(self, value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor) -> None:
        self.value = value
        self.dtype = torch.promote_types(value.dtype, torch.float32)
        self.points = weights.shape[3] * weights.shape[4]
        self.locations, self.weights = locations.reshape(-1, self.points, 2), weights.reshape(-1, self.points)
        self.levels = Levels.of(shapes, weights.shape[4], value.new_empty(0, dtype=self.dtype))
        images, self.tokens, self.heads, _ = value.shape
        self.rows_of_image = weights.shape[1] * self.heads
        limit = ENTRIES_ON_HOST if value.device.type == "cpu" else ENTRIES_ELSEWHERE
        self.part = max(1, limit // (4 * self.points))
        self.group = min(images, max(1, self.part // self.rows_of_image))

    def groups(self) -> Iterator[tuple[slice, slice]]:
        """Yield the images and the rows of each group."""
        images, n = len(self.value), self.rows_of_image
        for start in range(0, images, self.group):
            stop = min(start + self.group, images)
            yield slice(start, stop), slice(start * n, stop * n)

    def values(self, images: slice) -> Tensor:
        """Return the values of a group of G images (G*S*H, D)."""
        return self.value[images].to(self.dtype).flatten(0, 2).contiguous()

    def matrix(self, rows: slice) -> SamplingMatrix:
        """Return a matrix with uninitialised entries for `rows`."""
        return SamplingMatrix.empty(rows.stop - rows.start, 4 * self.points, self.levels.size)

    def parts(self, rows: slice) -> Iterator[tuple[slice, Tensor]]:
        """Yield, for each part of a group's rows, these rows and the columns of their first tokens (N, 1)."""
        row = torch.arange(rows.stop - rows.start, dtype=torch.int32, device=self.value.device)[:, None]
        column = row // self.rows_of_image * (self.tokens * self.heads) + row % self.heads
        for start in range(rows.start, rows.stop, self.part):
            part = slice(start, min(start + self.part, rows.stop))
            yield part, column[start - rows.start : part.stop - rows.start]

    def taps(self, part: slice, column: Tensor, into: SamplingMatrix) -> Taps:
        """Return the taps of a part, and write their entries to `into`."""
        locations, weights = self.locations[part].to(self.dtype), self.weights[part].to(self.dtype)
        return Taps.of(self.levels, self.heads, column, locations, weights, into)


def sample(value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
    """Sample value (B, S, H, D) at locations (B, Q, H, L, P, 2) with weights (B, Q, H, L, P): (B, Q, H*D).

    The result has the type of `value`; sums are float32, or float64 if the values are. No size may be 0.
    """
    batch = Batch(value, shapes, locations, weights)
    out = value.new_empty(len(batch.weights), value.shape[-1])
    for images, rows in batch.groups():
        values = batch.values(images)
        for part, column in batch.parts(rows):
            matrix = batch.matrix(part)
            batch.taps(part, column, matrix)
            out[part] = matrix.gather(values)
    return out.view(*weights.shape[:2], -1)


def sample_backward(
    grad: Tensor, value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of value, locations and weights, in their types, from that of the output (B, Q, H*D)."""
    batch = Batch(value, shapes, locations, weights)
    cotangents = grad.reshape(-1, value.shape[-1])  # (B*Q*H, D)
    of_value, (of_locations, of_weights) = [], (x.new_empty(x.shape) for x in (batch.locations, batch.weights))
    for images, rows in batch.groups():
        values, matrix, cotangent = batch.values(images), batch.matrix(rows), cotangents[rows].to(batch.dtype)
        for part, column in batch.parts(rows):
            within = slice(part.start - rows.start, part.stop - rows.start)  # the part's rows in the group's
            taps = batch.taps(part, column, matrix.rows(within))
            entries = matrix.rows(within).dots(cotangent[within], values)  # (N, 4K)
            of_axes, of_weights[part] = taps.gradients(entries)
            of_locations[part] = of_axes.permute(1, 2, 0)
        of_value.append(matrix.scatter(cotangent, len(values)).to(value.dtype))
    return _concatenate(of_value, value), of_locations.view(locations.shape), of_weights.view(weights.shape)


def value_gradient(
    grad: Tensor, value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """Return the gradient of value alone, in its type, from that of the output (B, Q, H*D)."""
    batch = Batch(value, shapes, locations, weights)
    cotangents = grad.reshape(-1, value.shape[-1])
    of_value = []
    for images, rows in batch.groups():
        matrix = batch.matrix(rows)
        for part, column in batch.parts(rows):
            batch.taps(part, column, matrix.rows(slice(part.start - rows.start, part.stop - rows.start)))
        columns = value[images].shape[:3].numel()
        of_value.append(matrix.scatter(cotangents[rows].to(batch.dtype), columns).to(value.dtype))
    return _concatenate(of_value, value)


def _concatenate(groups: list[Tensor], like: Tensor) -> Tensor:
    whole = groups[0] if len(groups) == 1 else torch.cat(groups)  # one group needs no copy
    return whole.view(like.shape)
