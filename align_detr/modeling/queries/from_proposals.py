"""Queries made of a two-stage detector's proposals: their references are the proposals' boxes, without gradient."""

import dataclasses

from torch import Tensor, nn

from align_detr.checks import check_count
from align_detr.errors import ConfigError
from align_detr.layers.initialization import initialize_matrices
from align_detr.layers.positional import encode_coordinates
from align_detr.structures import MAIN, ONE_TO_MANY, Memory, Proposals, QueryPart, Targets


class ProposalQueries(nn.Module):
    """The proposed tokens as contents; the decoder makes positions from references (DAB-Deformable-DETR, two-stage)."""

    def forward(
        self, memory: Memory, proposals: Proposals | None = None, targets: Targets | None = None
    ) -> list[QueryPart]:
        """One part, `main`: content (B, Q, C), reference (B, Q, 4)."""
        proposals = needed(proposals, self)
        return [QueryPart(name=MAIN, content=proposals.content, reference=proposals.reference, valid=proposals.valid)]


class MixedSelectionQueries(nn.Module):
    """The same with learned contents (DINO, Zhang et al. 2022, section 3.4, "mixed query selection"): the token of a
    proposal may show several objects, or part of one.
    """

    def __init__(self, *, num_queries: int = 900, embed_dim: int = 256) -> None:
        super().__init__()
        self.content = nn.Embedding(num_queries, embed_dim)

    def forward(
        self, memory: Memory, proposals: Proposals | None = None, targets: Targets | None = None
    ) -> list[QueryPart]:
        """One part, `main`: content (B, Q, C), reference (B, Q, 4)."""
        proposals = needed(proposals, self, len(self.content.weight), "model.queries.main.num_queries")
        content = self.content.weight.expand(len(proposals.reference), -1, -1)
        return [QueryPart(name=MAIN, content=content, reference=proposals.reference, valid=proposals.valid)]


class GroupMixedSelectionQueries(MixedSelectionQueries):
    """`groups` sets of `num_queries` learned contents in training, each matched on its own and blind to the others, so
    that an object has that many positives; evaluation uses the first set (Group-DETR, Chen et al. 2022, section 3, on
    DINO).

    All groups stand at the same proposals: the paper defines groups as further sets of decoder queries and leaves open
    what they are in a two-stage detector. So the first stage is DINO's, in training as in evaluation, and the groups
    differ in their contents alone. Denoising queries, of which the paper does not speak here, see the queries of all
    groups, and none of these sees them: that too is a reading of ours.
    """

    def __init__(self, *, num_queries: int = 900, embed_dim: int = 256, groups: int = 3) -> None:
        check_count(groups, "model.queries.main.groups", remedy="for one set use MixedSelectionQueries")
        super().__init__(num_queries=groups * num_queries, embed_dim=embed_dim)
        self.groups = groups

    def forward(
        self, memory: Memory, proposals: Proposals | None = None, targets: Targets | None = None
    ) -> list[QueryPart]:
        """One part, `main`, content (B, Q, C) and reference (B, Q, 4): with targets Q = groups x num_queries, group by
        group, without them the first group alone.
        """
        per_group = len(self.content.weight) // self.groups
        proposals = needed(proposals, self, per_group, "model.queries.main.num_queries")
        groups = 1 if targets is None else self.groups
        valid = None if proposals.valid is None else proposals.valid.repeat(1, groups)
        reference = proposals.reference.repeat(1, groups, 1)
        content = self.content.weight[: groups * per_group].expand(len(reference), -1, -1)
        return [QueryPart(name=MAIN, content=content, reference=reference, groups=groups, valid=valid)]


class EncodedProposalQueries(nn.Module):
    """Positions and contents are the halves of a linear layer, with norm, of the proposals' encoded boxes
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
        """One part, `main`: content and position (B, Q, C), reference (B, Q, 4)."""
        proposals = needed(proposals, self)
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
        """boxes (B, Q, 4) normalised cxcywh -> (B, Q, 2C), encoded in the order x, y, width, height."""
        return self.norm(self.projection(encode_coordinates(boxes, self.num_features, self.temperature)))


class EncodedMixedSelectionQueries(EncodedProposalQueries):
    """The same with learned contents (H-DETR, Jia et al. 2023, its "mixed selection"); half of the encoding is unused,
    as in the released code.
    """

    def __init__(self, *, num_queries: int = 300, embed_dim: int = 256, temperature: float = 10000.0) -> None:
        super().__init__(embed_dim=embed_dim, temperature=temperature)
        self.content = nn.Embedding(num_queries, embed_dim)

    def forward(
        self, memory: Memory, proposals: Proposals | None = None, targets: Targets | None = None
    ) -> list[QueryPart]:
        """One part, `main`: content and position (B, Q, C), reference (B, Q, 4)."""
        proposals = needed(proposals, self, len(self.content.weight), "model.queries.source.num_queries")
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

    def forward(
        self, memory: Memory, proposals: Proposals | None = None, targets: Targets | None = None
    ) -> list[QueryPart]:
        """`main`, and with targets also `o2m`, whose losses are divided by `copies` times the number of targets."""
        (part,) = self.source(memory, proposals, targets)
        main = _queries_of(part, slice(None, self.num_one_to_one))
        if targets is None:
            return [main]
        others = _queries_of(part, slice(self.num_one_to_one, None))
        return [main, dataclasses.replace(others, name=ONE_TO_MANY, scale=float(self.copies), copies=self.copies)]


def needed(proposals: Proposals | None, source: nn.Module, num_contents: int | None = None, key: str = "") -> Proposals:
    """The proposals; raises `ConfigError` where there are none, or not one for each of the `num_contents` learned
    contents of `source`, which `key` sets in most configs.
    """
    name = type(source).__name__
    if proposals is None:
        raise ConfigError(
            f"model.proposals is null, but {name} in model.queries makes queries of proposals: give the model "
            "proposals, or a source of queries that needs none"
        )
    count = proposals.reference.shape[1]
    if num_contents is not None and count != num_contents:
        raise ConfigError(
            f"model.proposals.num_queries is {count}, but num_queries of {name} ({key}) is {num_contents}: give both "
            "the same number"
        )
    return proposals


def _queries_of(part: QueryPart, which: slice) -> QueryPart:
    """Some of a part's queries."""
    return dataclasses.replace(
        part,
        content=part.content[:, which],
        position=None if part.position is None else part.position[:, which],
        reference=None if part.reference is None else part.reference[:, which],
        valid=None if part.valid is None else part.valid[:, which],
    )
