"""Distinct queries: proposals and queries whose boxes nearly coincide with a better one's are set aside (DDQ)."""

from typing import Any

import torch
from torch import Tensor, nn

from align_detr.checks import check_count, check_share
from align_detr.errors import ConfigError
from align_detr.layers.boxes import cxcywh_to_xyxy, pairwise_iou
from align_detr.modeling.head import ClassifyingHead
from align_detr.modeling.proposals import ClassProposals, gather_tokens
from align_detr.modeling.query_mask import DecoderState, block, require_moving_boxes
from align_detr.structures import MAIN, Memory

ROUNDS = 20


@torch.no_grad()
def distinct_boxes(boxes: Tensor, scores: Tensor, iou: float = 0.8, rounds: int = ROUNDS) -> Tensor:
    """Return which boxes class-agnostic non-maximum suppression keeps: normalised cxcywh (B, N, 4), scores (B, N) ->
    (B, N) bool. Of equal scores the lower index goes first.

    Box after box, a box is kept if its IoU with every kept box of a higher score is at most `iou`. Here all boxes are
    decided at once, `rounds` times, by those kept in the round before, starting from all, so that nothing is read back
    from the device. A decision that depends on d others, one after another, is final after d + 1 rounds; with an even
    number of rounds, no box is removed that the sequential form keeps.
    """
    corners = cxcywh_to_xyxy(boxes.float())
    index = torch.arange(scores.shape[1], device=scores.device)
    higher = scores[:, None, :] > scores[:, :, None]  # (B, N, N): whether the column is before the row
    higher |= (scores[:, None, :] == scores[:, :, None]) & (index[None, :] < index[:, None])
    suppressors = higher & (pairwise_iou(corners, corners) > iou)
    kept = torch.ones_like(scores, dtype=torch.bool)
    for _ in range(rounds):
        kept = ~(suppressors & kept[:, None, :]).any(-1)
    return kept


class DistinctProposals(ClassProposals):
    """`ClassProposals` of which the distinct ones come first (DDQ, Zhang et al. 2023, distinct query selection).

    `candidates` times as many tokens as queries, those of the highest scores, take part in the suppression at `iou`;
    as many queries are the best of the kept ones. Where these are too few, the best of the removed ones follow, since
    the number of queries is fixed. The released code suppresses among all tokens, which is the same unless they are too
    few.
    """

    def __init__(self, *, iou: float = 0.8, candidates: int = 3, **others: Any) -> None:
        super().__init__(**others)
        self.iou = check_share(iou, "model.proposals.iou")
        self.candidates = check_count(candidates, "model.proposals.candidates")

    def choose(self, tokens: Tensor, anchors: Tensor, allowed: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
        """Return the indices of the tokens, (B, Q), distinct ones first, and which are real, as `select_best`."""
        scores = self.class_scores(self.class_embed(tokens)).amax(-1).detach().masked_fill(~allowed, -torch.inf)
        scores, index = scores.topk(torch.sym_min(self.candidates * self.num_queries, scores.shape[1]), dim=1)
        boxes = self.boxes(gather_tokens(tokens, index), gather_tokens(anchors, index)).detach()
        kept = distinct_boxes(boxes, scores, self.iou)
        last = torch.where(allowed.gather(1, index), 1 - kept.long(), 2)  # kept, removed, not allowed to propose
        place = torch.arange(last.shape[1], device=last.device)  # equal ones stay in their order
        order = (last * last.shape[1] + place).argsort(dim=1)[:, : self.num_queries]
        return self.fill_up(index.gather(1, order), memory)


class DistinctQueries(nn.Module):
    """Entry of a decoder's `query_masks` by which, before every layer but the first, queries whose boxes nearly
    coincide with a better one's do not see each other (DDQ, Zhang et al. 2023, distinct query selection).

    The queries of `main` are suppressed at `iou`, whatever their classes, by their highest probability in the layer
    before and the boxes at which the next layer starts. Two queries that are both removed are blocked, but for a query
    and itself; a query that is kept sees all others and is seen by them: this is, but for itself, the mask of mmdet's
    code, whose authors found it best. There the scores are of queries without the decoder's norm. Each layer decides
    anew. Unlike in the paper, removed queries stay in the matching, the losses and the detections. Evaluation
    suppresses, too.
    """

    def __init__(self, *, iou: float = 0.8) -> None:
        super().__init__()
        self.iou = check_share(iou, "model.decoder.query_masks: iou")

    def check_model(self, model: Any) -> None:
        """Raise ConfigError for a decoder whose boxes do not move, and a head without classes between the layers."""
        require_moving_boxes(model, self)
        if not isinstance(model.head, ClassifyingHead):
            raise ConfigError(
                f"model.decoder.query_masks has DistinctQueries, but {type(model.head).__name__} has no method "
                "`classify`: use SharedHead or LayerwiseHead."
            )

    def forward(self, mask: Tensor | None, state: DecoderState) -> Tensor | None:
        """Return the mask with the pairs of removed queries blocked, for every head alike: (B, 1, Q, Q) or, if it holds
        numbers, (B, H, Q, Q); unchanged before the first layer. Raise ConfigError for queries without boxes.
        """
        if state.layer == 0:
            return mask
        removed = self.removed(state)
        itself = torch.eye(removed.shape[1], dtype=torch.bool, device=removed.device)
        return block(mask, (removed[:, :, None] & removed[:, None, :] & ~itself)[:, None])

    def removed(self, state: DecoderState) -> Tensor:
        """Return which queries of all parts are removed before the layer to come, (B, Q) bool; of `main` alone."""
        removed, start = [], 0
        boxes, hidden = state.boxes(state.layer, self), state.hidden[-1]
        for part in state.parts:
            of_part = slice(start, start + part.content.shape[1])
            start = of_part.stop
            if part.name == MAIN:
                scores = self.scores(hidden[:, of_part], state)
                if part.valid is not None:  # padding comes last, and removes no other
                    scores = scores.masked_fill(~part.valid, -torch.inf)
                groups = (scores.shape[0], part.groups)  # which join the batch
                own, scores = (x.unflatten(1, (part.groups, -1)).flatten(0, 1) for x in (boxes[:, of_part], scores))
                kept = distinct_boxes(own, scores, self.iou)
                removed.append(~kept.unflatten(0, groups).flatten(1))
            else:
                removed.append(boxes.new_zeros(boxes[:, of_part].shape[:2], dtype=torch.bool))
        return torch.cat(removed, dim=1)

    def scores(self, hidden: Tensor, state: DecoderState) -> Tensor:
        """Return the score that ranks each query, as its highest class probability does, without gradient: (B, Q, C) ->
        (B, Q). Raise ConfigError for a head without classes between the layers.
        """
        if not isinstance(state.head, ClassifyingHead):
            raise ConfigError(f"{type(state.head).__name__} has no method `classify`: use SharedHead or LayerwiseHead.")
        # No `no_grad`: under it, autocast of older PyTorch caches copies of the weights that pass no gradient.
        logits = state.head.classify(hidden.detach(), state.layer - 1).detach()
        softmax = getattr(state.head, "softmax", False)
        return (logits.log_softmax(-1)[..., :-1] if softmax else logits).amax(-1)
