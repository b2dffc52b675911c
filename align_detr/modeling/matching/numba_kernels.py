"""Costs and assignment on the host, compiled by numba. All in one file: numba's cache of compiled code notices changes
in no other.

A problem is one row of one image, with the number row B + image. C (n, Q) float32 is the cost of its targets.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

Array = np.ndarray
f32, i32 = np.float32, np.int32
TINY = f32(np.finfo(np.float32).tiny)
LN2_HIGH, LN2_LOW = f32(0.693359375), f32(math.log(2) - 0.693359375)  # the first times a small integer is exact


def compiled(function: Callable) -> Any:
    """Compile `function` at its first call, and keep the code for later processes; threads run side by side."""
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # numba finds no folder that it can write, for its cache
        return njit(nogil=True, error_model="numpy")(function)


@compiled
def bid_for_columns(C: Array, k: int, u: Array, v: Array, owner: Array, have: Array, limit: int) -> None:
    """Let rows without k columns bid, `limit` times in all: the row that bids takes the cheapest columns that are free
    or another row's at the prices v, and pays up to its next best. A row that loses a column bids again.

    Jonker and Volgenant's augmenting row reduction (1987), for k columns at once, which share the dual u of their row.
    As nothing is added to a price, the result is exact. With equal costs two rows can outbid each other forever;
    `limit` stops that.
    """
    n, num_columns = C.shape
    value, column = np.empty(k + 1), np.empty(k + 1, np.int64)  # the cheapest and the next best, sorted
    queue, waiting = np.arange(n), np.ones(n, np.bool_)
    first, length = 0, n
    for _ in range(limit):
        if length == 0:
            return
        i = queue[first]
        first, length, waiting[i] = (first + 1) % n, length - 1, False
        need, found, worst = k - have[i], 0, np.inf
        for j in range(num_columns):
            price = C[i, j] - v[j]
            if price < worst and owner[j] != i:
                rank = min(found, need)
                found = min(found + 1, need + 1)
                while rank > 0 and value[rank - 1] > price:  # insertion sort: k is small
                    value[rank], column[rank] = value[rank - 1], column[rank - 1]
                    rank -= 1
                value[rank], column[rank] = price, j
                if found > need:
                    worst = value[need]
        u[i] = value[found - 1]  # the next best, or the last that it takes if there is none
        for j in range(num_columns):
            if owner[j] == i:
                v[j] = C[i, j] - u[i]
        for j in column[:need]:
            loser = owner[j]
            if loser >= 0:
                have[loser] -= 1
                if not waiting[loser]:
                    queue[(first + length) % n] = loser
                    length, waiting[loser] = length + 1, True
            owner[j], v[j] = i, C[i, j] - u[i]
        have[i] = k


@compiled
def add_column(C: Array, start: int, u: Array, v: Array, owner: Array) -> None:
    """Give row `start` one more column, along the cheapest path of exchanges to a free one (Dijkstra on the reduced
    costs C - u - v). A row is visited once, however many columns it has: they all are at its distance.
    """
    n, num_columns = C.shape
    distance, reached_from = np.full(num_columns, np.inf), np.empty(num_columns, np.int64)
    settled = np.zeros(num_columns, np.bool_)
    row_distance, entered_by = np.full(n, np.inf), np.full(n, -1)
    row, here, last = start, 0.0, -1
    while row >= 0:  # until a free column is nearest
        if row_distance[row] == np.inf:
            row_distance[row], entered_by[row] = here, last
            for j in range(num_columns):
                if owner[j] == row and not settled[j]:
                    settled[j], distance[j] = True, here
                elif not settled[j]:
                    further = here - u[row] + C[row, j] - v[j]
                    if further < distance[j]:
                        distance[j], reached_from[j] = further, row
        nearest = np.inf
        for j in range(num_columns):
            if not settled[j] and (distance[j] < nearest or (distance[j] == nearest and owner[j] < 0)):
                nearest, last = distance[j], j
        settled[last], here, row = True, nearest, owner[last]
    for i in range(n):  # new duals, with which the pairs on the path have reduced cost 0
        if row_distance[i] < np.inf:
            u[i] += here - row_distance[i]
    for j in range(num_columns):
        if settled[j]:
            v[j] -= here - distance[j]
    row = -1
    while row != start:  # back along the path, each row takes the column by which the next was entered
        row = reached_from[last]
        owner[last], last = row, entered_by[row]


@compiled
def assign_columns(C: Array, k: int, owner: Array) -> None:
    """Solve `assign` if there are columns enough: k n <= Q."""
    n = len(C)
    u, v, have = np.zeros(n), np.zeros(C.shape[1]), np.zeros(n, np.int64)
    owner[:] = -1
    bid_for_columns(C, k, u, v, owner, have, 3 * n)
    for i in range(n):
        for _ in range(have[i], k):
            add_column(C, i, u, v, owner)


@compiled
def assign(C: Array, k: int, owner: Array) -> None:
    """Write into `owner` (Q,) the row that each column goes to, or -1: the cheapest way to give each row k columns, or
    each column a row if there are fewer columns than that. Exact in float64.
    """
    n, num_columns = C.shape
    if n * k <= num_columns:
        assign_columns(C, k, owner)
        return
    # Fewer columns than copies: columns become rows, each with one of the n k copies.
    turned, column_of = np.empty((num_columns, n * k), C.dtype), np.empty(n * k, np.int64)
    for i in range(n * k):
        turned[:, i] = C[i // k]
    assign_columns(turned, 1, column_of)
    for i in range(n * k):
        if column_of[i] >= 0:
            owner[column_of[i]] = i // k


@compiled
def are_finite(C: Array) -> bool:
    """Return whether all numbers are finite, as `assign` needs: zero times NaN or infinity is NaN."""
    check = np.zeros(C.shape[1], C.dtype)
    for i in range(len(C)):
        row = C[i]
        for j in range(len(row)):
            check[j] += row[j] * 0
    return not np.isnan(check.sum())


@compiled
def assign_problems(numbers: Array, cost: Array, starts: Array, copies: Array, owner: Array) -> bool:
    """Solve `assign` for the problems `numbers`: cost (R, N, Q), the targets of image b from starts[b], copies (R, B),
    0 for none -> owner (R, B, Q). Return whether all costs are finite; a problem that has others is not assigned.
    """
    images = len(starts) - 1
    all_finite = True
    for number in numbers:
        row, image = number // images, number % images
        C = cost[row, starts[image] : starts[image + 1]]
        owner[row, image] = -1
        if copies[row, image] > 0 and len(C) > 0:
            if are_finite(C):
                assign(C, copies[row, image], owner[row, image])
            else:
                all_finite = False
    return all_finite


@compiled
def log_(x: Array, rest: Array) -> None:
    """Take the logarithm of normal, finite x > 0, in place; `rest` is of the same length. Cephes' logf: x = 2^e f, and
    a series for f - 1. numba calls libm's for one number at a time; written out, the loops are vectorised.
    """
    bits, rest_bits = x.view(i32), rest.view(i32)
    for j in range(len(x)):
        exponent = (bits[j] - i32(0x3F3504F3)) >> i32(23)  # f between sqrt(1/2) and sqrt(2)
        rest_bits[j] = bits[j] - (exponent << i32(23))
        x[j] = f32(exponent)
    for j in range(len(x)):
        f = rest[j] - f32(1)
        p = f32(7.0376836292e-2)
        p = p * f - f32(1.1514610310e-1)
        p = p * f + f32(1.1676998740e-1)
        p = p * f - f32(1.2420140846e-1)
        p = p * f + f32(1.4249322787e-1)
        p = p * f - f32(1.6668057665e-1)
        p = p * f + f32(2.0000714765e-1)
        p = p * f - f32(2.4999993993e-1)
        p = p * f + f32(3.3333331174e-1)
        x[j] = x[j] * LN2_HIGH + (f + (f * f * (p * f - f32(0.5)) + x[j] * LN2_LOW))


@compiled
def focal_(x: Array, alpha: np.float32, weight: np.float32, p: Array, log_p: Array, log_q: Array) -> None:
    """Turn the logits x into `FocalCost` with gamma 2, in place; the others are of the same length. The exponential is
    Cephes' expf, written out for the reason in `log_`.
    """
    scale = log_q.view(i32)
    for j in range(len(x)):  # e^-x = 2^whole e^r
        z = min(max(-x[j], f32(-87)), f32(87))
        whole = np.floor(z * f32(1 / math.log(2)) + f32(0.5))
        r = z - whole * LN2_HIGH - whole * LN2_LOW
        e = f32(1.9875691500e-4)
        e = e * r + f32(1.3981999507e-3)
        e = e * r + f32(8.3334519073e-3)
        e = e * r + f32(4.1665795894e-2)
        e = e * r + f32(1.6666665459e-1)
        e = e * r + f32(5.0000001201e-1)
        p[j] = e * r * r + r + f32(1)
        scale[j] = (i32(whole) + i32(127)) << i32(23)  # the bits of 2^whole
    for j in range(len(x)):
        p[j] = f32(1) / (f32(1) + p[j] * log_q[j])
        log_p[j], log_q[j] = p[j] + f32(1e-8), f32(1) - p[j] + f32(1e-8)
    for j in range(len(x)):
        x[j] = p[j]  # kept, as the logarithms need a buffer
    log_(log_p, p)
    log_(log_q, p)
    for j in range(len(x)):
        q = f32(1) - x[j]
        x[j] = weight * ((f32(1) - alpha) * x[j] * x[j] * log_q[j] - alpha * q * q * log_p[j])


@compiled
def box_costs(
    C: Array,
    class_cost: Array,
    slot: Array,
    queries: Array,
    truth: Array,
    l1: np.float32,
    giou: np.float32,
    eps: np.float32,
) -> None:
    """Set C[i] to class_cost[slot[i]] + l1 `L1Cost` - giou GIoU, as in `Pairs`: class_cost (d, Q), and queries (4, Q)
    and truth (n, 4) with x, y and half the width and height.
    """
    x, y, half_width, half_height = queries[0], queries[1], queries[2], queries[3]
    least = f32(-np.inf) if eps > 0 else TINY
    for i in range(len(C)):
        true_x, true_y, true_width, true_height = truth[i, 0], truth[i, 1], truth[i, 2], truth[i, 3]
        row, of_class = C[i], class_cost[slot[i]]
        for j in range(len(row)):
            dx, dy = abs(x[j] - true_x), abs(y[j] - true_y)
            dw, dh = abs(half_width[j] - true_width), abs(half_height[j] - true_height)
            width, height = half_width[j] + true_width, half_height[j] + true_height
            apart_x, apart_y = max(dx, dw), max(dy, dh)
            inter = max(width - apart_x, f32(0)) * max(height - apart_y, f32(0))
            hull = max((width + apart_x) * (height + apart_y) + eps, least)
            area = f32(4) * (true_width * true_height + half_width[j] * half_height[j])
            union = max(area - inter + eps, least)
            overlap = inter / union + union / hull - f32(1)
            row[j] = of_class[j] + l1 * (dx + dy + f32(2) * (dw + dh)) - giou * overlap


@compiled
def match_problems(
    numbers: Array,
    logits: Array,
    boxes: Array,
    labels: Array,
    truth: Array,
    starts: Array,
    copies: Array,
    weights: tuple[np.float32, np.float32, np.float32, np.float32, np.float32],
    focal: bool,
    owner: Array,
) -> bool:
    """Compute the costs of the problems `numbers` and solve `assign`, one after the other, so that the costs of none
    leave the cache.

    logits (R, B, Q, K), or probabilities if not `focal`; boxes (R, B, Q, 4) cxcywh; labels (N,), truth (N, 4) as in
    `box_costs`; weights: alpha, of the class, L1 and GIoU, and GIoU's eps -> owner (R, B, Q). Return whether all costs
    are finite; a problem that has others is not assigned.
    """
    _, images, num_queries, num_classes = logits.shape
    alpha, weight, l1, giou, eps = weights
    longest = np.append(np.diff(starts), 1).max()
    C, class_cost = np.empty((longest, num_queries), f32), np.empty((min(longest, num_classes), num_queries), f32)
    slot, slot_of = (
        np.empty(longest, np.int64),
        np.empty(num_classes, np.int64),
    )  # row of class_cost: of a target, class
    queries, scratch = np.empty((4, num_queries), f32), np.empty((3, num_queries), f32)
    all_finite = True
    for number in numbers:
        row, image = number // images, number % images
        n, targets = starts[image + 1] - starts[image], slice(starts[image], starts[image + 1])
        owner[row, image] = -1
        if copies[row, image] == 0 or n == 0:
            continue
        slot_of[:] = -1
        classes, num_slots = labels[targets].copy(), 0
        for i in range(n):
            label = classes[i]
            if slot_of[label] < 0:
                slot_of[label], classes[num_slots], num_slots = num_slots, label, num_slots + 1
            slot[i] = slot_of[label]
        for j in range(num_queries):
            for s in range(num_slots):
                class_cost[s, j] = logits[row, image, j, classes[s]]
            queries[0, j], queries[1, j] = boxes[row, image, j, 0], boxes[row, image, j, 1]
            queries[2, j], queries[3, j] = boxes[row, image, j, 2] / f32(2), boxes[row, image, j, 3] / f32(2)
        for s in range(num_slots):
            if focal:
                focal_(class_cost[s], alpha, weight, scratch[0], scratch[1], scratch[2])
            else:
                class_cost[s] *= -weight
        box_costs(C[:n], class_cost, slot, queries, truth[targets], l1, giou, eps)
        if are_finite(C[:n]):
            assign(C[:n], copies[row, image], owner[row, image])
        else:
            all_finite = False
    return all_finite
