"""The decoder: queries look at each other and at the image, layer after layer."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from align_detr.checks import check_count
from align_detr.errors import ConfigError
from align_detr.layers.initialization import initialize_matrices
from align_detr.modeling.head import LayerwiseHead
from align_detr.modeling.query_position import GivenPosition
from align_detr.structures import MAIN, Memory, Predictions, QueryPart, QueryPlace


class Decoder(nn.Module):
    """`num_layers` copies of `layer`, each with its own weights; every layer's output passes `norm`, if there is one,
    and the head. `first_layer` takes the place of the first copy.

    `query_position` makes the positions of the queries for each layer (those that the queries bring, unless given).

    `refine`: each layer moves the references for the next (Deformable-DETR, section 4.2; DAB-DETR, section 4): the
    head's correction, from the output before `norm`, is added to the reference and passed on without gradient. With
    `look_forward_twice` a layer's boxes start from the previous layer's reference with its gradient, so that a layer's
    box loss also trains the layer before it (DINO, Zhang et al. 2022, section 3.5).
    """

    def __init__(
        self,
        *,
        layer: nn.Module,
        num_layers: int,
        norm: nn.Module | None = None,
        first_layer: nn.Module | None = None,
        query_position: nn.Module | None = None,
        refine: bool = False,
        look_forward_twice: bool = False,
    ) -> None:
        super().__init__()
        check_count(num_layers, "model.decoder.num_layers")
        first = layer if first_layer is None else first_layer
        self.layers = nn.ModuleList(copy.deepcopy(first if i == 0 else layer) for i in range(num_layers))
        self.norm = nn.Identity() if norm is None else norm
        self.query_position = GivenPosition() if query_position is None else query_position
        self.refine = refine
        self.look_forward_twice = look_forward_twice
        initialize_matrices(self)

    def forward(self, queries: Sequence[QueryPart], memory: Memory, head: nn.Module) -> dict[str, Predictions]:
        """The parts of the queries, decoded together -> a prediction set for each, under the part's name, one row a
        layer and query group.
        """
        hidden, references = self.decode(queries, memory, head)
        predictions, start = {}, 0
        for part in queries:
            stop = start + part.content.shape[1]
            own = None if references is None else [r[:, start:stop] for r in references]
            predictions[part.name] = part.as_set(head(hidden[:, :, start:stop], own))
            start = stop
        return predictions

    def decode(
        self, queries: Sequence[QueryPart], memory: Memory, head: nn.Module
    ) -> tuple[Tensor, list[Tensor] | None]:
        """The normed output of every layer for the queries of all parts, (R, B, Q, C), and the references that its
        boxes start from, R of (B, Q, 2 or 4), or None. Raises `ConfigError` where there is nothing to refine, or the
        head is for another number of layers.
        """
        if isinstance(head, LayerwiseHead) and head.num_layers != len(self.layers):
            raise ConfigError(
                f"model.head.num_layers is {head.num_layers}, but model.decoder.num_layers is {len(self.layers)}: give "
                "both the same number"
            )
        x = torch.cat([part.content for part in queries], dim=1)
        given = _joined([part.position for part in queries])
        reference = _joined([part.reference for part in queries])
        if self.refine and (reference is None or not hasattr(head, "refine")):
            missing = "model.queries brings none" if reference is None else f"a {type(head).__name__} cannot do that"
            raise ConfigError(f"model.decoder.refine moves references, but {missing}: set it to False, or change that")
        runs = separate_runs(queries)
        blocked = None if runs > 1 else blocked_pairs(queries)
        outputs, references, start = [], [], reference
        for i, layer in enumerate(self.layers):
            position, sine = self.query_position(x, given, reference, memory, i)
            place = QueryPlace(position=position, sine=sine, reference=reference, blocked=blocked, runs=runs)
            x = layer(x, place, memory)
            outputs.append(self.norm(x))
            references.append(start)
            if self.refine and i + 1 < len(self.layers):
                start = head.refine(x, reference, i)
                reference = start.detach()
                start = start if self.look_forward_twice else reference
        return torch.stack(outputs), None if reference is None else references


def blocked_pairs(queries: Sequence[QueryPart]) -> Tensor | None:
    """(Q, Q) bool, True where a query (row) may not look at another (column): their groups differ, unless the other is
    of `main` and the query may see `main`. With padding among the queries (B, 1, Q, Q): nothing but itself looks at a
    query that is not valid. None where nothing is blocked.
    """
    groups = sum(part.groups for part in queries if part.content.shape[1])
    if groups <= 1 and all(part.valid is None for part in queries):
        return None
    device = queries[0].content.device
    ids, sees_main, is_main, first = [], [], [], 0
    for part in queries:
        length = part.content.shape[1]
        ids.append(first + torch.arange(length, device=device) // max(1, length // part.groups))
        sees_main.append(torch.full((length,), part.sees_main, device=device))
        is_main.append(torch.full((length,), part.name == MAIN, device=device))
        first += part.groups
    ids, sees_main, is_main = (torch.cat(x) for x in (ids, sees_main, is_main))
    blocked = (ids[:, None] != ids) & ~(sees_main[:, None] & is_main)
    if all(part.valid is None for part in queries):
        return blocked
    valid = torch.cat([_validity(part) for part in queries], dim=1)
    alone = torch.eye(len(ids), dtype=torch.bool, device=device)  # padding looks at itself: attention needs some key
    return ((blocked | ~valid[:, None, :]) & ~alone)[:, None]


def separate_runs(queries: Sequence[QueryPart]) -> int:
    """How many runs of equal length the queries are, where `blocked_pairs` says nothing but that none sees another;
    else 1. Such runs need no mask, which Group-DETR's 11 x 300 queries would pay for with 11 times as many pairs.
    """
    parts = [part for part in queries if part.content.shape[1]]
    lengths = {part.content.shape[1] // part.groups for part in parts}
    if len(lengths) != 1 or any(part.sees_main or part.valid is not None for part in parts):
        return 1
    return sum(part.groups for part in parts)


def _validity(part: QueryPart) -> Tensor:
    """(B, Q) bool."""
    if part.valid is not None:
        return part.valid
    return torch.ones(part.content.shape[:2], dtype=torch.bool, device=part.content.device)


def _joined(values: Sequence[Tensor | None]) -> Tensor | None:
    """The values of all parts after one another; a decoder's parts have them all or none."""
    return None if values[0] is None else torch.cat(list(values), dim=1)
