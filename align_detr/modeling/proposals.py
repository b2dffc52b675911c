"""The first stage of two-stage detectors: each token proposes a box, and the best ones become decoder queries."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from align_detr.checks import check_classes, check_count, is_number
from align_detr.errors import ConfigError
from align_detr.layers.initialization import initialize_matrices
from align_detr.modeling.deformable import token_centres
from align_detr.modeling.head import box_correction, linear_classifier
from align_detr.structures import Memory, Predictions, Proposals

ANCHOR_SIDE = 0.05  # default, relative to the image, at the finest level; it doubles per level
SMALLEST, LARGEST = 0.01, 0.99  # open range of centre and sides of an anchor that may propose


class TwoStageProposals(nn.Module):
    """Base of both kinds of proposals: a projection of the tokens, a classifier and a box MLP, like those of a decoder
    layer (Deformable-DETR, Zhu et al. 2021, appendix A.4).

    A token's box starts at an anchor (see `token_anchors`), whose side at level l is `anchor_sides[l]` of the image. In
    the released code, padding and tokens whose anchor leaves the image share one score and may be selected, and an
    image with fewer tokens than `num_queries` raises an error. Here such tokens come last, and the missing proposals of
    an image are padding: `valid` is False and their references are finite.

    `softmax` as in the heads; it must equal the head's, since the losses read both.
    """

    def __init__(
        self,
        *,
        num_queries: int = 300,
        num_classes: int = 80,
        embed_dim: int = 256,
        softmax: bool = False,
        prior: float = 0.01,
        anchor_sides: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.num_queries = check_count(num_queries, "model.proposals.num_queries")
        self.softmax = softmax
        self.anchor_sides = None if anchor_sides is None else _check_sides(anchor_sides)
        self.projection = nn.Linear(embed_dim, embed_dim)
        self.norm = nn.LayerNorm(embed_dim)
        initialize_matrices(self.projection)
        nn.init.zeros_(self.projection.bias)
        self.class_embed = linear_classifier(embed_dim, num_classes, prior, softmax)
        self.bbox_embed = box_correction(embed_dim)

    def forward(self, memory: Memory) -> Proposals:
        """Return the proposals of encoded tokens."""
        raise NotImplementedError

    def anchors(self, memory: Memory) -> tuple[Tensor, Tensor]:
        """Return the tokens' anchors as logits (B, S, 4), and which tokens may propose, (B, S) bool; the anchors of the
        others are infinite.
        """
        anchors, allowed = token_anchors(memory, self.anchor_sides)
        return torch.logit(anchors).masked_fill(~allowed[..., None], torch.inf), allowed

    def encode(self, tokens: Tensor, allowed: Tensor) -> Tensor:
        """Project and norm the tokens, (B, S, C) -> (B, S, C), with zeros in place of those not `allowed`, (B, S)."""
        return self.norm(self.projection(tokens.masked_fill(~allowed[..., None], 0.0)))

    def boxes(self, tokens: Tensor, anchors: Tensor) -> Tensor:
        """Return boxes, normalised cxcywh (..., 4) float32, of encoded tokens (..., C) and anchor logits (..., 4)."""
        return (self.bbox_embed(tokens).float() + anchors).sigmoid()

    def class_scores(self, logits: Tensor) -> Tensor:
        """Return scores that rank classes as their probabilities do, (B, S, K), of logits (B, S, K or K + 1)."""
        return logits.float().log_softmax(-1)[..., :-1] if self.softmax else logits

    def select_best(self, scores: Tensor, allowed: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
        """Return the indices of the `allowed` tokens with the highest `scores`, (B, S) both, best first: (B, Q); and
        which of them are real, (B, Q) bool, or None if all are.
        """
        k = torch.sym_min(self.num_queries, scores.shape[1])
        return self.fill_up(scores.detach().masked_fill(~allowed, -torch.inf).topk(k, dim=1).indices, memory)

    def fill_up(self, index: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
        """Fill the indices of the best tokens, (B, k), those that may propose first, up to (B, Q); and return which of
        them are real, (B, Q) bool, or None if all are.

        The host counts the allowed tokens from the image sizes, so that it need not wait for the device.
        """
        counts = count_allowed(memory, self.anchor_sides)
        if not isinstance(counts, Tensor):
            if min(counts) >= self.num_queries:
                return index, None
            counts = torch.tensor(counts).to(index.device, non_blocking=True)
        index = F.pad(index, (0, self.num_queries - index.shape[1]))  # with fewer tokens than queries, index 0
        return index, torch.arange(self.num_queries, device=index.device) < counts[:, None]


class ObjectProposals(TwoStageProposals):
    """Proposals ranked by the probability of class 0, which stands for "object" of any class; every token is trained
    (Deformable-DETR).

    The set `enc` has all S tokens. Its `valid` hides those that may not propose; the released code trains them as
    background, so that the batch's padding changes the loss.
    """

    def forward(self, memory: Memory) -> Proposals:
        """Return the proposals, with logits (1, B, S, K or K + 1) and boxes (1, B, S, 4) of all encoded tokens."""
        anchors, allowed = self.anchors(memory)
        tokens = self.encode(memory.tokens, allowed)  # (B, S, C)
        logits, boxes = self.class_embed(tokens).float(), self.boxes(tokens, anchors)
        index, valid = self.select_best(self.class_scores(logits)[..., 0], allowed, memory)
        return Proposals(
            content=gather_tokens(tokens, index).detach(),
            reference=gather_tokens(boxes, index).detach(),
            predictions=Predictions(
                logits=logits[None],
                boxes=boxes[None],
                softmax=self.softmax,
                valid=allowed,
                class_agnostic=True,
                origin="proposals",
            ),
            valid=valid,
        )


class ClassProposals(TwoStageProposals):
    """Proposals ranked by their most probable class; only the selected tokens are trained, with the objects' classes
    (DAB-Deformable-DETR, DINO).
    """

    @property
    def num_classes(self) -> int:
        """K, which must be the head's."""
        return self.class_embed.out_features - int(self.softmax)

    def check_model(self, model: Any) -> None:
        """Raise ConfigError if the head has other classes."""
        check_classes(self.num_classes, "model.proposals", model.head)

    def forward(self, memory: Memory) -> Proposals:
        """Return the proposals, with logits (1, B, Q, K or K + 1) and boxes (1, B, Q, 4) of the selected tokens."""
        anchors, allowed = self.anchors(memory)
        # Only the selected tokens are trained: they are encoded again below, and this graph is freed at once. `no_grad`
        # is no option: under it, autocast of older PyTorch caches copies of the weights that pass no gradient.
        index, valid = self.choose(self.encode(memory.tokens.detach(), allowed), anchors, allowed, memory)
        tokens = self.encode(gather_tokens(memory.tokens, index), allowed.gather(1, index))  # (B, Q, C)
        boxes = self.boxes(tokens, gather_tokens(anchors, index))
        logits = self.class_embed(tokens).float()
        return Proposals(
            content=tokens.detach(),
            reference=boxes.detach(),
            predictions=Predictions(
                logits=logits[None], boxes=boxes[None], softmax=self.softmax, valid=valid, origin="proposals"
            ),
            valid=valid,
        )

    def choose(self, tokens: Tensor, anchors: Tensor, allowed: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
        """Return what `select_best` does of encoded tokens (B, S, C) and their anchor logits (B, S, 4)."""
        return self.select_best(self.class_scores(self.class_embed(tokens)).amax(-1), allowed, memory)


def token_anchors(memory: Memory, sides: Sequence[float] | None = None) -> tuple[Tensor, Tensor]:
    """Return a box around every token's centre, normalised cxcywh (B, S, 4) float32, with side `sides[level]` (default:
    0.05 * 2^level), and which of them may propose, (B, S) bool: no padding, and all four numbers in (0.01, 0.99).
    """
    centres = token_centres(memory)
    sides = _sides_of_levels(memory, sides)
    size = torch.cat([centres.new_full((h * w,), side) for side, (h, w) in zip(sides, memory.shapes, strict=True)])
    anchors = torch.cat([centres, size[:, None].expand(centres.shape[0], -1, 2)], dim=-1)
    # The centres of padding lie beyond 1, so the upper bound excludes padding as well.
    return anchors, ((anchors > SMALLEST) & (anchors < LARGEST)).all(-1)


def count_allowed(memory: Memory, sides: Sequence[float] | None = None) -> list[int] | Tensor:
    """Count the tokens of each image that `token_anchors` lets propose, from the valid sizes alone: (B,) if these are
    tensors.
    """
    if isinstance(memory.valid_sizes[0], Tensor):
        return token_anchors(memory, sides)[1].sum(1)
    counts = [0] * len(memory.valid_sizes[0])
    for side, sizes in zip(_sides_of_levels(memory, sides), memory.valid_sizes, strict=True):
        for image, (height, width) in enumerate(sizes):
            if SMALLEST < side < LARGEST:
                counts[image] += _count_inside(height) * _count_inside(width)
    return counts


def _check_sides(sides: Sequence[float]) -> list[float]:
    """Return the sides as numbers. Raise ConfigError for one outside the open range (0.01, 0.99)."""
    sides = sides if isinstance(sides, Sequence) else [sides]
    for side in sides:
        if not is_number(side) or not SMALLEST < side < LARGEST:
            raise ConfigError(
                f"model.proposals.anchor_sides has {side}, but a side must lie between {SMALLEST} and {LARGEST} of the "
                "image, or its level proposes nothing: set another."
            )
    return [float(side) for side in sides]


def _sides_of_levels(memory: Memory, sides: Sequence[float] | None) -> Sequence[float]:
    """Return the side per level, the default if `sides` is None. Raise ConfigError for a wrong number of them."""
    if sides is not None and len(sides) != len(memory.shapes):
        raise ConfigError(
            f"model.proposals.anchor_sides has {len(sides)} numbers, but the neck makes {len(memory.shapes)} levels: "
            "give one per level."
        )
    return [ANCHOR_SIDE * 2**level for level in range(len(memory.shapes))] if sides is None else sides


def _count_inside(length: int) -> int:
    """Count the centres (i + 0.5) / length in (0.01, 0.99), in integer arithmetic."""
    outside = (length + 50) // 100  # at each end: i with 100 i + 50 <= length
    return max(0, length - 2 * outside)


def gather_tokens(values: Tensor, index: Tensor) -> Tensor:
    """Return the values (B, S, N) of the tokens at `index` (B, Q): (B, Q, N)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))
