"""The noise of denoising queries: pure functions of labels, boxes and random numbers, the layout of the noisy objects,
and the checks of its settings.

Two letters besides the library's: **D** noisy copies of each object, **N** objects of the batch that take part.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from align_detr.checks import check_between, check_number
from align_detr.layers.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh


@dataclass
class Draws:
    """Random numbers of one step: `flip` (D, N) in [0, 1), which replaces a label if it is small; `label` (D, N) int64,
    the replacement; `box` (D, N, 4) in [0, 1); `sign` (D, N, 4), -1 or 1, for contrastive noise only.
    """

    flip: Tensor
    label: Tensor
    box: Tensor
    sign: Tensor | None = None


@dataclass
class Layout:
    """Layout of a batch's noisy objects: `groups` blocks of `copies` x `width` queries per image, which leave
    `left_out` objects without a query.

    index (3, D, N) int64: image, target and query of each copy of each object; D = groups x copies.
    """

    index: np.ndarray
    groups: int
    copies: int
    width: int
    left_out: int

    @property
    def num_queries(self) -> int:
        """Denoising queries per image, filled or not."""
        return self.groups * self.copies * self.width


def lay_out(counts: Sequence[int], groups: int, copies: int, max_queries: int) -> Layout:
    """Lay out `groups` blocks of `copies` queries for each object of the image with the most, by `counts`, with at most
    `max_queries` per image.

    If they do not fit, groups are given up first, down to one; then each image that is still too crowded takes part
    with a random choice of its objects. Copy d of an image's j-th object is query d x width + j.
    """
    width = min(max(counts, default=0), max_queries // copies)
    if width:
        groups = max(1, min(groups, max_queries // (copies * width)))
    # Chosen on the host, so that nothing waits for the device.
    chosen = [np.arange(n) if n <= width else np.sort(torch.randperm(n)[:width].numpy()) for n in counts]
    image = np.repeat(np.arange(len(counts)), [len(x) for x in chosen])
    column = np.concatenate([np.empty(0, np.int64), *(np.arange(len(x)) for x in chosen)])  # j, (N,)
    target = np.concatenate([np.empty(0, np.int64), *chosen])
    query = np.arange(groups * copies)[:, None] * width + column  # (D, N)
    index = np.stack(np.broadcast_arrays(image, target, query)).astype(np.int64)
    return Layout(index=index, groups=groups, copies=copies, width=width, left_out=sum(counts) - len(target))


def flip_labels(labels: Tensor, draws: Draws, probability: float) -> Tensor:
    """Replace labels (D, N) with this probability; the new one may equal the old one (DN-DETR, section 4.3)."""
    return torch.where(draws.flip < probability, draws.label, labels)


def jitter_boxes(boxes: Tensor, draws: Draws, scale: float) -> Tensor:
    """Move the centre of cxcywh boxes (D, N, 4) by up to `scale` times half the size, and change the size by up to
    `scale` times itself, kept in [0, 1] (DN-DETR, section 4.3, with lambda 1 = lambda 2 = `scale`).
    """
    width, height = boxes[..., 2], boxes[..., 3]
    reach = torch.stack([width / 2, height / 2, width, height], dim=-1)
    return (boxes + (2 * draws.box - 1) * reach * scale).clamp(0, 1)


def contrast_boxes(boxes: Tensor, draws: Draws, scale: float) -> Tensor:
    """Move each edge of cxcywh boxes (D, N, 4) in or out by up to `scale` times half the size in even copies, and by
    one to two times as much in odd ones, the negatives (DINO, section 3.3, with lambda 2 = 2 lambda 1).

    Edges are kept in [0, 1]. Far noise can swap them: such a box has a negative size, which the caller's logit clamps
    (as the official code does; the paper speaks of centre and size, the code moves the edges).
    """
    if draws.sign is None:
        raise ValueError("The random numbers have no signs: draw them as `ContrastiveDenoisingQueries` does.")
    distance = draws.box.clone()
    distance[1::2] += 1
    half = boxes[..., 2:].repeat(1, 1, 2) / 2  # of the side along which each of the four edges moves
    corners = cxcywh_to_xyxy(boxes) + draws.sign * distance * half * scale
    return xyxy_to_cxcywh(corners.clamp(0, 1))


def check_noise(label_noise: float, box_noise: float, most: int) -> None:
    """Raise ConfigError for noise out of its range; labels change with probability `label_noise` / `most`."""
    remedy = f"set it to a number between them (0 changes no label, {most} draws all anew)"
    check_between(label_noise, "model.queries.label_noise", 0, most, remedy)
    check_number(box_noise, "model.queries.box_noise", least=0)
