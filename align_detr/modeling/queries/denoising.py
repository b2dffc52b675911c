"""Denoising: query sources that, in training, put noisy objects before the queries of another source."""

import dataclasses
import logging
from typing import Any

import torch
from detectron2.utils.logger import log_first_n
from torch import Tensor, nn

from align_detr.checks import check_classes, check_count
from align_detr.errors import ConfigError
from align_detr.layers.boxes import inverse_sigmoid
from align_detr.modeling.events import log_scalar
from align_detr.modeling.queries.noise import (
    Draws,
    Layout,
    check_noise,
    contrast_boxes,
    flip_labels,
    jitter_boxes,
    lay_out,
)
from align_detr.structures import DENOISED, Match, Memory, Proposals, QueryPart, Targets

logger = logging.getLogger(__name__)

WITHOUT = "to go without denoising, use the source `main` alone"


class DenoisingSource(nn.Module):
    """Base of the denoising sources: in training, a part `dn` of noisy objects goes before the parts of the source
    `main`, whose queries have boxes as references.

    `num_labels` rows of `label_dim` columns are learned, one per label. `max_queries` is the hard cap on the denoising
    queries per image, so that memory does not grow with a crowded one: it costs groups first, then objects (see
    `lay_out`; the losses are still divided by all objects). The numbers of queries and of objects without any are
    logged as `denoising_queries` and `denoising_left_out` in detectron2's event storage.

    Images with fewer objects than the fullest have empty queries: content zero, box in the middle. Their group sees
    them, and they count as background, as in the official code.
    """

    copies = 1  # queries per object in a group
    num_classes: int  # K, which must be the head's

    def __init__(self, *, main: nn.Module, num_labels: int, label_dim: int, max_queries: int) -> None:
        super().__init__()
        check_count(max_queries, "model.queries.max_queries", self.copies, WITHOUT)
        logger.info("Denoising has at most %d queries per image (model.queries.max_queries).", max_queries)
        self.main = main
        self.label_embed = nn.Embedding(num_labels, label_dim)
        self.max_queries = max_queries

    def check_model(self, model: Any) -> None:
        """Raise ConfigError if the head has other classes than the labels of denoising queries."""
        check_classes(self.num_classes, "model.queries", model.head)

    def forward(
        self, memory: Memory, proposals: Proposals | None = None, targets: Targets | None = None
    ) -> list[QueryPart]:
        """Return the parts of `main`, in training after the part `dn`, which has Q = 0 queries without any object."""
        parts = self.mark_not_denoising(self.main(memory, proposals, targets))
        if targets is None:
            return parts
        for part in parts:
            if part.position is not None or part.reference is None or part.reference.shape[-1] != 4:
                raise ConfigError(
                    f"model.queries.main gives the part '{part.name}' learned positions or no boxes, which denoising "
                    "queries cannot join: use a source whose queries have reference boxes only."
                )
        return [self.denoise(targets), *parts]

    def denoise(self, targets: Targets) -> QueryPart:
        """Return the part `dn`: content (B, Q, C), reference (B, Q, 4), and the match of the positive copies."""
        layout = lay_out(targets.counts, self.num_groups(max(targets.counts)), self.copies, self.max_queries)
        self._log(layout)
        index = torch.from_numpy(layout.index).to(targets.boxes.device, non_blocking=True)
        image, target, query = index  # (D, N) each
        draws = self.draw(image.shape[0], image.shape[1], targets.boxes.device)
        labels, boxes = self.add_noise(targets.labels[image, target], targets.boxes[image, target], draws)
        content = self.embed(labels)  # (D, N, C)
        shape = (len(targets.counts), layout.num_queries)
        # Bounds of 1e-3, as in the official code, whatever the head has.
        reference = inverse_sigmoid(boxes, eps=1e-3).sigmoid()
        positive = index[:, :: self.copies].flatten(1)  # (3, M): the first copy of each object in each group
        return QueryPart(
            name=DENOISED,
            content=content.new_zeros(*shape, content.shape[-1]).index_put((image, query), content),
            reference=reference.new_full((*shape, 4), 0.5).index_put((image, query), reference),
            groups=layout.groups,
            sees_main=True,
            match=Match(torch.zeros_like(positive[0]), positive[0], query=positive[2], target=positive[1]),
            scale=float(layout.groups),
        )

    def mark_not_denoising(self, parts: list[QueryPart]) -> list[QueryPart]:
        """Mark the queries of `main` as not denoising; unchanged by default."""
        return parts

    def embed(self, labels: Tensor) -> Tensor:
        """Return the content of denoising queries: labels (...) -> (..., C)."""
        return self.label_embed(labels)

    def num_groups(self, longest: int) -> int:
        """Return how many groups are wanted if the fullest image has `longest` objects."""
        raise NotImplementedError

    def draw(self, copies: int, count: int, device: torch.device) -> Draws:
        """Draw the random numbers for `copies` noisy copies (D) of `count` objects (N), on the device."""
        flip = torch.rand(copies, count, device=device)
        label = torch.randint(self.label_embed.num_embeddings, (copies, count), device=device)
        return Draws(flip=flip, label=label, box=torch.rand(copies, count, 4, device=device))

    def add_noise(self, labels: Tensor, boxes: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Return labels (D, N) and boxes (D, N, 4), normalised cxcywh, with noise."""
        raise NotImplementedError

    def _log(self, layout: Layout) -> None:
        log_scalar("denoising_queries", layout.num_queries)
        log_scalar("denoising_left_out", layout.left_out)
        if layout.left_out:
            room = f"{layout.width} object{'s' if layout.width > 1 else ''}"
            log_first_n(
                logging.WARNING,
                f"Denoising has room for {room} per image (model.queries.max_queries={self.max_queries}): "
                "images with more take part with a random choice of theirs.",
                name=__name__,
            )


class DenoisingQueries(DenoisingSource):
    """Groups of slightly moved objects, some with a wrong label, to be corrected (DN-DETR, Li et al. 2022, section 4).

    `label_noise` is the probability of another label, `box_noise` the reach of the box noise (`jitter_boxes`). With
    `indicator`, the last channel is 1 for denoising queries and 0 for the others (section 4.5). The queries of `main`
    get the row after the classes, "unknown", added to their contents; in DAB-DETR these are zero otherwise. As in
    detrex, the noise draws "unknown" as well; the authors' code draws classes only.

    With the default cap of 500, an image of 100 objects still has its five groups.
    """

    def __init__(
        self,
        *,
        main: nn.Module,
        num_classes: int = 80,
        embed_dim: int = 256,
        groups: int = 5,
        label_noise: float = 0.2,
        box_noise: float = 0.4,
        indicator: bool = True,
        max_queries: int = 500,
    ) -> None:
        check_count(groups, "model.queries.groups", remedy=WITHOUT)
        check_noise(label_noise, box_noise, most=1)
        label_dim = embed_dim - 1 if indicator else embed_dim
        super().__init__(main=main, num_labels=num_classes + 1, label_dim=label_dim, max_queries=max_queries)
        self.num_classes = num_classes
        self.groups = groups
        self.label_noise = label_noise
        self.box_noise = box_noise
        self.indicator = indicator

    def mark_not_denoising(self, parts: list[QueryPart]) -> list[QueryPart]:
        """Add "unknown" to the contents, and set the indicator to 0."""
        return [dataclasses.replace(part, content=self._unknown(part.content)) for part in parts]

    def embed(self, labels: Tensor) -> Tensor:
        """Return the content of denoising queries, with indicator 1: labels (...) -> (..., C)."""
        rows = self.label_embed(labels)
        return nn.functional.pad(rows, (0, 1), value=1.0) if self.indicator else rows

    def num_groups(self, longest: int) -> int:
        """Return the same number always."""
        return self.groups

    def add_noise(self, labels: Tensor, boxes: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Return labels (D, N) and boxes (D, N, 4), normalised cxcywh, with noise."""
        return flip_labels(labels, draws, self.label_noise), jitter_boxes(boxes, draws, self.box_noise)

    def _unknown(self, content: Tensor) -> Tensor:
        row = self.label_embed.weight[-1]
        if not self.indicator:
            return content + row
        return nn.functional.pad(content[..., :-1] + row, (0, 1))


class ContrastiveDenoisingQueries(DenoisingSource):
    """Pairs of a slightly moved object, to be corrected, and one moved further, to become background (DINO, Zhang et
    al. 2022, section 3.3).

    There are `dn_number` pairs per image, in as many groups as the fullest image allows: max(1, `dn_number` // n) for
    its n objects. `label_noise` is twice the probability of another label (as in the official code), `box_noise` the
    reach of the box noise (`contrast_boxes`). By default `max_queries` is 2 x `dn_number`, but at least 200: up to
    `dn_number` objects, none is left out.
    """

    copies = 2

    def __init__(
        self,
        *,
        main: nn.Module,
        num_classes: int = 80,
        embed_dim: int = 256,
        dn_number: int = 100,
        label_noise: float = 0.5,
        box_noise: float = 1.0,
        max_queries: int | None = None,
    ) -> None:
        check_count(dn_number, "model.queries.dn_number", remedy=WITHOUT)
        check_noise(label_noise, box_noise, most=2)
        cap = max(200, 2 * dn_number) if max_queries is None else max_queries
        super().__init__(main=main, num_labels=num_classes, label_dim=embed_dim, max_queries=cap)
        if cap < 2 * dn_number:
            logger.warning(
                "model.queries.dn_number=%d asks for %d denoising queries per image, but model.queries.max_queries=%d "
                "allows no more: raise it, or set it to null.",
                dn_number,
                2 * dn_number,
                cap,
            )
        self.num_classes = num_classes
        self.dn_number = dn_number
        self.label_noise = label_noise
        self.box_noise = box_noise

    def num_groups(self, longest: int) -> int:
        """Return as many as make `dn_number` pairs, at least one."""
        return max(1, self.dn_number // max(1, longest))

    def draw(self, copies: int, count: int, device: torch.device) -> Draws:
        """Draw the random numbers for `copies` noisy copies (D) of `count` objects (N), on the device."""
        sign = torch.randint(2, (copies, count, 4), device=device) * 2.0 - 1
        return dataclasses.replace(super().draw(copies, count, device), sign=sign)

    def add_noise(self, labels: Tensor, boxes: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Return labels (D, N) and boxes (D, N, 4), normalised cxcywh, with noise."""
        return flip_labels(labels, draws, self.label_noise / 2), contrast_boxes(boxes, draws, self.box_noise)
