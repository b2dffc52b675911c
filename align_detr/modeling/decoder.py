"""The decoder: in each layer, queries attend to each other and to the image."""

import copy
from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from align_detr.checks import check_count
from align_detr.errors import ConfigError
from align_detr.layers.initialization import initialize_matrices
from align_detr.modeling.decoder_layers import QueryLayer
from align_detr.modeling.head import Head, RefiningHead
from align_detr.modeling.query_mask import DecoderState, QueryMask
from align_detr.modeling.query_position import GivenPosition, QueryPosition
from align_detr.structures import MAIN, Memory, Predictions, QueryPart, QueryPlace


class Decoder(nn.Module):
    """`num_layers` copies of `layer` with separate weights; the head reads every layer's output, through `norm` if it
    is given. `first_layer` replaces the first copy.

    `query_position` (see `QueryPosition`) computes the queries' positions for each layer; by default they are those of
    the query parts.

    With `refine`, each layer moves the references for the next (Deformable-DETR, section 4.2; DAB-DETR, section 4): the
    head's correction, from the output before `norm`, is added to the reference, which continues without gradient. With
    `look_forward_twice`, a layer's boxes start from the reference with the gradient of the previous layer's correction,
    so that a layer's box loss also trains the layer before it (DINO, Zhang et al. 2022, section 3.5).

    Each of `query_masks` (see `QueryMask`) changes, before each layer, which queries attend to each other, in this
    order, starting from the rule that `blocked_pairs` states.
    """

    query_position: QueryPosition
    query_masks: Iterable[QueryMask]

    def __init__(
        self,
        *,
        layer: nn.Module,
        num_layers: int,
        norm: nn.Module | None = None,
        first_layer: nn.Module | None = None,
        query_position: nn.Module | None = None,
        query_masks: Sequence[nn.Module] = (),
        refine: bool = False,
        look_forward_twice: bool = False,
    ) -> None:
        super().__init__()
        check_count(num_layers, "model.decoder.num_layers")
        first = layer if first_layer is None else first_layer
        self.layers = nn.ModuleList(copy.deepcopy(first if i == 0 else layer) for i in range(num_layers))
        self.norm = nn.Identity() if norm is None else norm
        self.query_position = GivenPosition() if query_position is None else query_position
        self.query_masks = cast("Iterable[QueryMask]", nn.ModuleList(query_masks))  # for torch, a list of any modules
        self.refine = refine
        self.look_forward_twice = look_forward_twice
        initialize_matrices(self)

    def forward(self, queries: Sequence[QueryPart], memory: Memory, head: Head) -> dict[str, Predictions]:
        """Decode all query parts together and return their prediction sets by name, with a row per layer and group."""
        return sets_of(queries, *self.decode(queries, memory, head), head)

    def decode(self, queries: Sequence[QueryPart], memory: Memory, head: Head) -> tuple[Tensor, list[Tensor] | None]:
        """Return what `pass_through` does of the decoder's layers."""
        return self.pass_through(self.layers, self.query_masks, queries, memory, head)

    def pass_through(
        self,
        layers: Iterable[QueryLayer],
        query_masks: Iterable[QueryMask],
        queries: Sequence[QueryPart],
        memory: Memory,
        head: Head,
    ) -> tuple[Tensor, list[Tensor] | None]:
        """Return the normed output of each of the `layers`, as many as the decoder has, for the queries of all parts,
        (R, B, Q, C), and the references from which its boxes start, R of (B, Q, 2 or 4), or None if the queries have
        none. Here R = layers.

        Raise ConfigError if references or head do not allow refinement.
        """
        x = torch.cat([part.content for part in queries], dim=1)  # (B, Q, C), Q over all parts
        given_position = _concatenate([part.position for part in queries], "positions")
        reference = _concatenate([part.reference for part in queries], "references")
        refining = _require_refining(head, reference) if self.refine else None
        masks = list(query_masks)
        runs = 1 if masks else separate_runs(queries)  # blocks that need no mask
        blocked = None if runs > 1 else blocked_pairs(queries)
        outputs: list[Tensor] = []
        starts = [] if reference is None else [reference] * len(self.layers)  # of each layer's boxes
        references: list[Tensor | None] = []
        for i, layer in enumerate(layers):
            position, sine = self.query_position(x, given_position, reference, memory, i)
            references.append(reference)
            mask = blocked
            # lists of its own: a mask that is computed again in the backward pass finds what it found before
            state = DecoderState(queries, head, hidden=list(outputs), references=list(references))
            for change in masks:
                mask = change(mask, state)
            place = QueryPlace(position=position, sine=sine, reference=reference, blocked=mask, runs=runs)
            x = layer(x, place, memory)
            outputs.append(self.norm(x))  # for the head only: the next layer takes x without this norm
            if refining is not None and reference is not None and i + 1 < len(self.layers):
                moved = refining.refine(x, reference, i)  # (B, Q, 4), also where the references were points
                reference = moved.detach()  # no gradient through it, for stability (Deformable-DETR, A.4)
                starts[i + 1] = moved if self.look_forward_twice else reference
        return torch.stack(outputs), starts or None


def sets_of(
    queries: Sequence[QueryPart], hidden: Tensor, references: Sequence[Tensor] | None, head: Head
) -> dict[str, Predictions]:
    """Return the prediction set of each part by name, from what a decoder returns for all of them."""
    predictions, start = {}, 0
    for part in queries:
        stop = start + part.content.shape[1]
        of_part = None if references is None else [r[:, start:stop] for r in references]
        predictions[part.name] = part.as_set(head(hidden[:, :, start:stop], of_part))
        start = stop
    return predictions


def blocked_pairs(queries: Sequence[QueryPart]) -> Tensor | None:
    """Return which query (row) may not attend to which other (column), bool: (Q, Q), or (B, 1, Q, Q) if some queries
    are padding, or None if nothing is blocked.

    Two queries are blocked if their groups differ, unless the column belongs to `main` and the row's part sees `main`.
    A padding query is hidden from all others, but not from itself, since a softmax needs at least one key.
    """
    groups = sum(part.groups for part in queries if part.content.shape[1])
    if groups <= 1 and all(part.valid is None for part in queries):
        return None
    device = queries[0].content.device
    groups_of, may_see_main, of_main, first_group = [], [], [], 0
    for part in queries:  # groups are numbered over all parts, so that no two parts share one
        length = part.content.shape[1]
        groups_of.append(first_group + torch.arange(length, device=device) // max(1, length // part.groups))
        may_see_main.append(torch.full((length,), part.sees_main, device=device))
        of_main.append(torch.full((length,), part.name == MAIN, device=device))
        first_group += part.groups
    group, sees_main, is_main = (torch.cat(x) for x in (groups_of, may_see_main, of_main))  # (Q,) each
    blocked = (group[:, None] != group) & ~(sees_main[:, None] & is_main)  # (Q, Q)
    if all(part.valid is None for part in queries):
        return blocked
    valid = torch.cat([_valid_of(part) for part in queries], dim=1)  # (B, Q)
    itself = torch.eye(len(group), dtype=torch.bool, device=device)
    return ((blocked | ~valid[:, None, :]) & ~itself)[:, None]  # the 1 is for the heads


def separate_runs(queries: Sequence[QueryPart]) -> int:
    """Return the number of runs, i.e. equally long query blocks, if the only rule is that runs do not attend to each
    other; otherwise 1.

    Such runs join the batch and need no mask: for the 11 x 300 queries of Group-DETR, a mask costs 11 times the pairs.
    """
    parts = [part for part in queries if part.content.shape[1]]
    lengths = {part.content.shape[1] // part.groups for part in parts}
    if len(lengths) != 1 or any(part.sees_main or part.valid is not None for part in parts):
        return 1
    return sum(part.groups for part in parts)


def _valid_of(part: QueryPart) -> Tensor:
    """Return which queries are not padding, (B, Q) bool."""
    if part.valid is not None:
        return part.valid
    return torch.ones(part.content.shape[:2], dtype=torch.bool, device=part.content.device)


def _concatenate(values: Sequence[Tensor | None], what: str) -> Tensor | None:
    """Join the values of all parts along Q: (B, Q, ...), or None. Raise ConfigError if only some parts have one."""
    present = [value for value in values if value is not None]
    if present and len(present) < len(values):
        raise ConfigError(
            f"Some parts of model.queries provide {what} and others do not, although the decoder joins all parts: use "
            "sources that agree."
        )
    return torch.cat(present, dim=1) if present else None


def _require_refining(head: Head, reference: Tensor | None) -> RefiningHead:
    """Return the head, which has to move references. Raise ConfigError if it cannot, or there are no references."""
    if reference is None:
        raise ConfigError(
            "model.decoder.refine is True, but model.queries provides no references: set refine to False, or use a "
            "source of queries with references."
        )
    if not isinstance(head, RefiningHead):
        raise ConfigError(
            f"model.decoder.refine is True, but {type(head).__name__} has no method `refine`: set refine to False, or "
            "use SharedHead or LayerwiseHead."
        )
    return head
