"""Queries from a two-stage detector's proposals, whose boxes, without gradient, are the references."""

import dataclasses
from typing import Any

from torch import Tensor, nn

from align_detr.checks import check_count
from align_detr.errors import ConfigError
from align_detr.layers.initialization import initialize_matrices
from align_detr.layers.positional import encode_coordinates
from align_detr.modeling.matching.limits import Limits
from align_detr.modeling.queries.learned import queries_of
from align_detr.structures import MAIN, ONE_TO_MANY, Memory, Proposals, QueryPart, Targets


class ProposalQueries(nn.Module):
    """Proposed tokens as contents; the decoder computes positions from references (DAB-Deformable-DETR, two-stage)."""

    def forward(
        self, memory: Memory, proposals: Proposals | None = None, targets: Targets | None = None
    ) -> list[QueryPart]:
        """Return one part, `main`: content (B, Q, C), reference (B, Q, 4)."""
        proposals = require_proposals(proposals, self)
        return [QueryPart(name=MAIN, content=proposals.content, reference=proposals.reference, valid=proposals.valid)]


class MixedSelectionQueries(nn.Module):
    """Proposals' boxes with learned contents (DINO, Zhang et al. 2022, section 3.4, "mixed query selection"): the token
    of a proposal may show several objects, or part of one.
    """

    def __init__(self, *, num_queries: int = 900, embed_dim: int = 256) -> None:
        super().__init__()
        self.content = nn.Embedding(num_queries, embed_dim)

    def forward(
        self, memory: Memory, proposals: Proposals | None = None, targets: Targets | None = None
    ) -> list[QueryPart]:
        """Return one part, `main`: content (B, Q, C), reference (B, Q, 4)."""
        proposals = require_proposals(proposals, self, len(self.content.weight), "model.queries.main.num_queries")
        content = self.content.weight.expand(proposals.reference.shape[0], -1, -1)
        return [QueryPart(name=MAIN, content=content, reference=proposals.reference, valid=proposals.valid)]


class GroupMixedSelectionQueries(MixedSelectionQueries):
    """`groups` query groups of `num_queries` learned contents in training, each matched separately and blind to the
    others, so that an object has that many positives; evaluation uses the first group (Group-DETR, Chen et al. 2022,
    section 3, on DINO).

    All groups share the proposals: the paper defines groups as further sets of decoder queries and leaves open what
    they are in a two-stage detector. So the first stage is DINO's, in training as in evaluation, and the groups differ
    in their contents only. Denoising queries, which the paper does not mention here, see the queries of all groups, and
    none of these sees them: that too is our reading.
    """

    def __init__(self, *, num_queries: int = 900, embed_dim: int = 256, groups: int = 3) -> None:
        check_count(groups, "model.queries.main.groups", remedy="for one set use MixedSelectionQueries")
        super().__init__(num_queries=groups * num_queries, embed_dim=embed_dim)
        self.groups = groups

    def forward(
        self, memory: Memory, proposals: Proposals | None = None, targets: Targets | None = None
    ) -> list[QueryPart]:
        """Return one part, `main`: content (B, Q, C), reference (B, Q, 4). With targets, Q = groups x num_queries,
        group by group; without them, it is the first group.
        """
        per_group = len(self.content.weight) // self.groups
        proposals = require_proposals(proposals, self, per_group, "model.queries.main.num_queries")
        groups = 1 if targets is None else self.groups
        valid = None if proposals.valid is None else proposals.valid.repeat(1, groups)
        reference = proposals.reference.repeat(1, groups, 1)
        content = self.content.weight[: groups * per_group].expand(reference.shape[0], -1, -1)
        return [QueryPart(name=MAIN, content=content, reference=reference, groups=groups, valid=valid)]


class EncodedProposalQueries(nn.Module):
    """Positions and contents from the proposals' encoded boxes: the halves of a linear layer with norm
    (Deformable-DETR, Zhu et al. 2021, appendix A.4, as its released code has it).
    """

    def __init__(self, *, embed_dim: int = 256, temperature: float = 10000.0) -> None:
        super().__init__()
        self.num_features = embed_dim // 2
        self.temperature = temperature
        self.projection = nn.Linear(2 * embed_dim, 2 * embed_dim)
        self.norm = nn.LayerNorm(2 * embed_dim)
        initialize_matrices(self.projection)
        nn.init.zeros_(self.projection.bias)

    def forward(
        self, memory: Memory, proposals: Proposals | None = None, targets: Targets | None = None
    ) -> list[QueryPart]:
        """Return one part, `main`: content and position (B, Q, C), reference (B, Q, 4)."""
        proposals = require_proposals(proposals, self)
        position, content = self.encode(proposals.reference).chunk(2, dim=-1)
        return [
            QueryPart(
                name=MAIN,
                content=content,
                position=position,
                reference=proposals.reference,
                valid=proposals.valid,
            )
        ]

    def encode(self, boxes: Tensor) -> Tensor:
        """Encode boxes (B, Q, 4) normalised cxcywh as (B, Q, 2C), in the order x, y, width, height."""
        return self.norm(self.projection(encode_coordinates(boxes, self.num_features, self.temperature)))


class EncodedMixedSelectionQueries(EncodedProposalQueries):
    """`EncodedProposalQueries` with learned contents (H-DETR, Jia et al. 2023, its "mixed selection"); half of the
    encoding is unused, as in the released code.
    """

    def __init__(self, *, num_queries: int = 300, embed_dim: int = 256, temperature: float = 10000.0) -> None:
        super().__init__(embed_dim=embed_dim, temperature=temperature)
        self.content = nn.Embedding(num_queries, embed_dim)

    def forward(
        self, memory: Memory, proposals: Proposals | None = None, targets: Targets | None = None
    ) -> list[QueryPart]:
        """Return one part, `main`: content and position (B, Q, C), reference (B, Q, 4)."""
        proposals = require_proposals(proposals, self, len(self.content.weight), "model.queries.source.num_queries")
        (part,) = super().forward(memory, proposals, targets)
        return [dataclasses.replace(part, content=self.content.weight.expand_as(part.content))]


class HybridQueries(nn.Module):
    """The hybrid branch (H-DETR, Jia et al. 2023, section 3.2): of the queries of `source`, the first `num_one_to_one`
    are `main`; the others, in training only, are the set `o2m`, matched to `copies` of each object. The two sets do not
    see each other.

    Matcher and normaliser take the number from the set. The criterion gives its weight, `set_weights={"o2m": ...}`.
    """

    def __init__(self, *, source: nn.Module, num_one_to_one: int = 300, copies: int = 6) -> None:
        super().__init__()
        self.source = source
        self.num_one_to_one = num_one_to_one
        self.copies = check_count(copies, "model.queries.copies")

    def check_model(self, model: Any) -> None:
        """Raise ConfigError if the matcher has another number of copies for `o2m`."""
        limits = getattr(getattr(getattr(model, "criterion", None), "matcher", None), "limits", None)
        if isinstance(limits, Limits):
            limits.check_brought(ONE_TO_MANY, self.copies)

    def forward(
        self, memory: Memory, proposals: Proposals | None = None, targets: Targets | None = None
    ) -> list[QueryPart]:
        """Return `main`, and with targets `o2m`, whose losses are divided by `copies` times the number of targets."""
        (part,) = self.source(memory, proposals, targets)
        main = queries_of(part, slice(None, self.num_one_to_one))
        if targets is None:
            return [main]
        others = queries_of(part, slice(self.num_one_to_one, None))
        return [main, dataclasses.replace(others, name=ONE_TO_MANY, scale=float(self.copies), copies=self.copies)]


def require_proposals(
    proposals: Proposals | None, source: nn.Module, num_contents: int | None = None, key: str = ""
) -> Proposals:
    """Return the proposals. Raise ConfigError if there are none, or not one for each of the `num_contents` learned
    contents of `source`, which `key` sets in most configs.
    """
    name = type(source).__name__
    if proposals is None:
        raise ConfigError(
            f"model.proposals is null, but {name} in model.queries makes queries of proposals: give the model "
            "proposals, or a source of queries that needs none."
        )
    count = proposals.reference.shape[1]
    if num_contents is not None and count != num_contents:
        raise ConfigError(
            f"model.proposals.num_queries is {count}, but num_queries of {name} ({key}) is {num_contents}: give both "
            "the same number."
        )
    return proposals
