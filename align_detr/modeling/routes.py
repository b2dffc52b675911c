"""Further passes of the decoder in training, whose queries are matched one-to-many: dropped in evaluation (DAC-DETR,
Mr.DETR).
"""

import dataclasses
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from align_detr.checks import check_count, check_number
from align_detr.errors import ConfigError
from align_detr.layers.attention import FeedForward
from align_detr.layers.initialization import initialize_matrices
from align_detr.modeling.decoder import Decoder, sets_of
from align_detr.modeling.decoder_layers import DecoderLayer, QueryLayer
from align_detr.modeling.head import Head
from align_detr.modeling.matching.one_to_many import OneToManyAssigner
from align_detr.modeling.query_mask import QueryMask
from align_detr.structures import MAIN, ONE_TO_MANY, Memory, Predictions, QueryPart, QueryPlace

KEY = "model.decoder.routes"


class Route(nn.Module):
    """Base of the routes: a way of the same queries through the same decoder layers, changed in one respect.

    The query parts named in `parts` go this way. `main` becomes the set `name`, which `assigner` matches (by default
    with its own defaults) and whose losses are divided by `scale` times the number of objects; a part with known
    matches, such as `dn`, becomes `<name>_<part>` and keeps its matches and scale. The criterion treats them as any
    set: prime-sample weights, if there are any, hold for `name`, and `set_weights` names it.
    """

    def __init__(
        self,
        *,
        name: str = ONE_TO_MANY,
        parts: Sequence[str] = (MAIN,),
        scale: float = 3.0,
        assigner: OneToManyAssigner | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.parts = list(parts)
        self.scale = check_number(scale, f"{KEY}: scale", least=1)
        self.assigner = OneToManyAssigner() if assigner is None else assigner

    def layers(self, layers: Iterable[DecoderLayer]) -> list[QueryLayer]:
        """Return this route's form of the decoder's layers, with their weights."""
        raise NotImplementedError

    def query_masks(self, query_masks: Iterable[QueryMask]) -> Iterable[QueryMask]:
        """Return which of the decoder's `query_masks` hold in this route: all."""
        return query_masks

    def chosen(self, queries: Sequence[QueryPart]) -> list[QueryPart]:
        """Return the parts that go this way."""
        return [part for part in queries if part.name in self.parts]

    def renamed(self, part: QueryPart) -> QueryPart:
        """Return a part under the name of its set in this route, with the scale of its losses."""
        if part.match is not None:
            return dataclasses.replace(part, name=f"{self.name}_{part.name}")
        name = self.name if part.name == MAIN else f"{self.name}_{part.name}"
        return dataclasses.replace(part, name=name, scale=self.scale, copies=None)

    def assigned(self, preds: Predictions) -> Predictions:
        """Return the set with the assigner that matches it, unless its matches are known."""
        return preds if preds.match is not None else dataclasses.replace(preds, assigner=self.assigner)


class CrossAttentionRoute(Route):
    """The layers without self-attention: cross-attention and feed-forward block alone (DAC-DETR, Hu et al. 2023, its
    C-decoder). Without exchange among queries, many of them learn to gather one object. It has no parameters.

    As in the paper, no layer has self-attention; the released code starts from the queries as they are after that of
    the decoder's first layer.
    """

    def layers(self, layers: Iterable[DecoderLayer]) -> list[QueryLayer]:
        """Return the layers without their first block."""
        return [partial(_without_exchange, layer) for layer in layers]

    def query_masks(self, query_masks: Iterable[QueryMask]) -> Iterable[QueryMask]:
        """Return none: queries do not attend to each other."""
        return ()


class FeedForwardRoute(Route):
    """The layers with feed-forward blocks of this route, between the layers' own norms (Mr.DETR, Zhang et al. 2025, the
    route with an independent FFN). How these blocks start is not verified: here as any others.
    """

    def __init__(
        self,
        *,
        num_layers: int = 6,
        embed_dim: int = 256,
        ffn_dim: int = 2048,
        dropout: float = 0.0,
        activation: nn.Module | None = None,
        **others: Any,
    ) -> None:
        super().__init__(**others)
        self.embed_dim = embed_dim
        self.ffns = nn.ModuleList(
            FeedForward(embed_dim=embed_dim, ffn_dim=ffn_dim, dropout=dropout, activation=activation)
            for _ in range(num_layers)
        )
        initialize_matrices(self.ffns)

    def check_model(self, model: Any) -> None:
        """Raise ConfigError for another number of layers than the decoder's, or another size of the queries."""
        count = len(model.decoder.layers)
        if len(self.ffns) != count:
            raise ConfigError(
                f"num_layers of FeedForwardRoute in {KEY} is {len(self.ffns)}, but model.decoder.num_layers is "
                f"{count}: give both the same number."
            )
        _require_size(model, self, self.embed_dim)

    def layers(self, layers: Iterable[DecoderLayer]) -> list[QueryLayer]:
        """Return the layers with the feed-forward blocks of this route."""
        return [partial(_with_ffn, layer, ffn) for layer, ffn in zip(layers, self.ffns, strict=True)]


class InstructionRoute(Route):
    """The layers with `num_tokens` learned instruction tokens beside the queries in self-attention (Mr.DETR, Zhang et
    al. 2025, the route of instructive self-attention): they tell the shared weights that this is the one-to-many task.

    The tokens have no position, are the same in all layers, and do not go on to cross-attention; these three are not
    verified. Queries that do not see each other, as those of different groups, all see the tokens, which tell nothing
    of one to another since every layer takes them anew.
    """

    def __init__(self, *, embed_dim: int = 256, num_tokens: int = 10, **others: Any) -> None:
        super().__init__(**others)
        self.tokens = nn.Embedding(check_count(num_tokens, f"{KEY}: num_tokens"), embed_dim)

    def check_model(self, model: Any) -> None:
        """Raise ConfigError for tokens of another size than the decoder's queries."""
        _require_size(model, self, self.tokens.embedding_dim)

    def layers(self, layers: Iterable[DecoderLayer]) -> list[QueryLayer]:
        """Return the layers whose queries also attend to the tokens."""
        return [partial(_with_tokens, layer, self.tokens.weight) for layer in layers]


class RoutedDecoder(Decoder):
    """`Decoder` whose queries, in training, also pass it along each of `routes`, as further prediction sets.

    Each pass starts anew from the queries, moves references of its own, and uses the decoder's norm, positions and
    head. Evaluation is that of `Decoder`, to the last bit, into which the weights load: only those of the routes are
    left over. Activation checkpointing does not hold for the routes.
    """

    def __init__(self, *, routes: Sequence[Route], **others: Any) -> None:
        super().__init__(**others)
        self.routes = cast("Sequence[Route]", nn.ModuleList(routes))  # for torch, a list of any modules
        for layer in self.layers:
            if not isinstance(layer, DecoderLayer) or type(layer).forward is not DecoderLayer.forward:
                raise ConfigError(
                    f"{KEY} is given, but model.decoder.layer is {type(layer).__name__}, whose blocks cannot be run "
                    "one by one: use DecoderLayer or a kind of it that keeps its `forward`."
                )

    def forward(self, queries: Sequence[QueryPart], memory: Memory, head: Head) -> dict[str, Predictions]:
        """Return the sets of `Decoder` and, in training, those of every route.

        Raise ConfigError for two sets of one name, and a route that no query part goes.
        """
        sets = super().forward(queries, memory, head)
        for route in self.routes if self.training else ():
            parts = route.chosen(queries)
            if not parts:
                raise ConfigError(
                    f"{KEY} has a route of the parts {', '.join(route.parts)}, but model.queries gives none of them: "
                    "name those that it gives."
                )
            layers = cast("Iterable[DecoderLayer]", self.layers)
            masks = route.query_masks(self.query_masks)
            decoded = self.pass_through(route.layers(layers), masks, parts, memory, head)
            for name, preds in sets_of([route.renamed(part) for part in parts], *decoded, head).items():
                if name in sets:
                    raise ConfigError(f"{KEY} makes a second set named '{name}': give each route another `name`.")
                sets[name] = route.assigned(preds)
        return sets


def _without_exchange(layer: DecoderLayer, x: Tensor, place: QueryPlace, memory: Memory) -> Tensor:
    return layer.transform(layer.observe(x, place, memory))


def _with_ffn(layer: DecoderLayer, ffn: nn.Module, x: Tensor, place: QueryPlace, memory: Memory) -> Tensor:
    return layer.transform(layer.observe(layer.exchange(x, place), place, memory), ffn)


def _with_tokens(layer: DecoderLayer, tokens: Tensor, x: Tensor, place: QueryPlace, memory: Memory) -> Tensor:
    """Update the contents x (B, Q, C) by a layer whose self-attention also has `tokens` (N, C), before the queries of
    each run.
    """
    count, runs = len(tokens), place.runs
    own = x.unflatten(1, (runs, -1)).flatten(0, 1)  # (B runs, Q / runs, C): runs join the batch
    joined = torch.cat([tokens.to(x.dtype).expand(len(own), -1, -1), own], dim=1)
    position = place.position
    if position is not None:
        position = nn.functional.pad(position.unflatten(1, (runs, -1)).flatten(0, 1), (0, 0, count, 0))
    # in a mask, False and 0 alike let a query attend
    blocked = None if place.blocked is None else nn.functional.pad(place.blocked, (count, 0, count, 0))
    beside = dataclasses.replace(place, position=position, blocked=blocked, runs=1)
    x = layer.exchange(joined, beside)[:, count:].unflatten(0, (-1, runs)).flatten(1, 2)
    return layer.transform(layer.observe(x, place, memory))


def _require_size(model: Any, route: Route, embed_dim: int) -> None:
    """Raise ConfigError for a route of another embed_dim than that of the decoder's layers."""
    expected = model.decoder.layers[0].self_attn_norm.normalized_shape[0]
    if embed_dim != expected:
        raise ConfigError(
            f"embed_dim of {type(route).__name__} in {KEY} is {embed_dim}, but that of model.decoder.layer is "
            f"{expected}: give both the same number."
        )
