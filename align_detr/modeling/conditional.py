"""Conditional attention, which compares contents and positions separately (Conditional-DETR, Meng et al. 2021, section
3.3), and its decoder layers, which DAB-DETR, DN-DETR and Group-DETR share.
"""

import torch
from torch import Tensor, nn

from align_detr.errors import ConfigError
from align_detr.layers.attention import attention_mask, attention_weights
from align_detr.layers.dropout import attend
from align_detr.modeling.decoder_layers import DecoderLayer, position_of
from align_detr.structures import Memory, QueryPlace


class SplitProjectionAttention(nn.Module):
    """Base of the two attentions below: contents and positions have separate projections; values are contents only."""

    def __init__(self, *, embed_dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(
                f"embed_dim is {embed_dim}, but must be a multiple of num_heads ({num_heads}): change one."
            )
        self.num_heads = num_heads
        self.dropout = dropout
        self.query_content = nn.Linear(embed_dim, embed_dim)
        self.key_content = nn.Linear(embed_dim, embed_dim)
        self.key_position = nn.Linear(embed_dim, embed_dim)
        self.value = nn.Linear(embed_dim, embed_dim)
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        nn.init.zeros_(self.out_proj.bias)

    def _split(self, x: Tensor) -> Tensor:
        """Split the channels among the heads: (B, Q, C) -> (B, H, Q, C / H)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, blocked: Tensor | None) -> Tensor:
        """Attend with the scale 1 / sqrt(D): query (B, H, Q, D), key (B, H, S, D), value (B, H, S, C / H) -> (B, Q, C).

        `blocked` is True where a query ignores a key, or numbers (see `attention_mask`); its shape broadcasts to
        (B, H, Q, S).
        """
        allowed = None if blocked is None else attention_mask(blocked, query.dtype)
        dropout = self.dropout if self.training else 0.0
        out = attend(query, key, value, mask=allowed, dropout_p=dropout)  # (B, H, Q, C / H)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class ConditionalSelfAttention(SplitProjectionAttention):
    """Attention among queries: queries and keys are sums of a projected content and a projected position."""

    def __init__(self, *, embed_dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__(embed_dim=embed_dim, num_heads=num_heads, dropout=dropout)
        self.query_position = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor, position: Tensor, *, blocked: Tensor | None = None) -> Tensor:
        """Attend: x, position (B, Q, C) -> (B, Q, C); `blocked` (Q, Q) or (B, 1, Q, Q) is True where a query (row)
        ignores another (column).
        """
        query = self.query_content(x) + self.query_position(position)  # (B, Q, C)
        key = self.key_content(x) + self.key_position(position)  # (B, Q, C)
        return self._attend(self._split(query), self._split(key), self._split(self.value(x)), blocked)


class ConditionalCrossAttention(SplitProjectionAttention):
    """Attention of queries to tokens: per head, the logit is the product of the two contents plus the product of the
    query's encoded reference and the token's position (equation 2).

    Both products are computed as one, of concatenated vectors of length 2 C / H, and scaled accordingly.
    """

    def __init__(self, *, embed_dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__(embed_dim=embed_dim, num_heads=num_heads, dropout=dropout)
        self.query_sine = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor, place: QueryPlace, memory: Memory, *, padding: Tensor | None = None) -> Tensor:
        """Attend: x (B, Q, C), with `place.position` and `place.sine` -> (B, Q, C); `padding` (B, S) is True for tokens
        to ignore. Raise ConfigError if the queries have no encoded references.
        """
        query, key = self._queries_and_keys(x, place, memory)
        blocked = None if padding is None else padding[:, None, None, :]  # (B, 1, 1, S)
        return self._attend(query, key, self._split(self.value(memory.tokens)), blocked)

    def weights(
        self, chosen: slice, x: Tensor, place: QueryPlace, memory: Memory, *, padding: Tensor | None = None
    ) -> Tensor:
        """Return the weights that `forward` gives the tokens for the `chosen` queries: (B, H, q, S) float32."""
        position = None if place.position is None else place.position[:, chosen]
        place = QueryPlace(position=position, sine=_sine_of(place)[:, chosen])
        query, key = self._queries_and_keys(x[:, chosen], place, memory)
        return attention_weights(query, key, None if padding is None else ~padding[:, None, None])

    def _queries_and_keys(self, x: Tensor, place: QueryPlace, memory: Memory) -> tuple[Tensor, Tensor]:
        """Return contents and positions of queries, (B, H, Q, 2 C / H), and of keys, (B, H, S, 2 C / H)."""
        key_position = self.key_position(memory.position)  # (B, S, C)
        query, key = self._project_contents(x, place, memory, key_position)
        # Split before concatenating, so that each head has its part of the contents and of the positions.
        sine = self.query_sine(_sine_of(place))  # (B, Q, C)
        query = torch.cat([self._split(query), self._split(sine)], dim=-1)
        return query, torch.cat([self._split(key), self._split(key_position)], dim=-1)

    def _project_contents(
        self, x: Tensor, place: QueryPlace, memory: Memory, key_position: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the projected contents of queries (B, Q, C) and keys (B, S, C)."""
        return self.query_content(x), self.key_content(memory.tokens)


class FirstConditionalCrossAttention(ConditionalCrossAttention):
    """`ConditionalCrossAttention` with positions also added to the contents, as in the first layer of the papers' code,
    whose queries start without content.
    """

    def __init__(self, *, embed_dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__(embed_dim=embed_dim, num_heads=num_heads, dropout=dropout)
        self.query_position = nn.Linear(embed_dim, embed_dim)

    def _project_contents(
        self, x: Tensor, place: QueryPlace, memory: Memory, key_position: Tensor
    ) -> tuple[Tensor, Tensor]:
        query, key = super()._project_contents(x, place, memory, key_position)
        return query + self.query_position(position_of(place)), key + key_position


class ConditionalDecoderLayer(DecoderLayer):
    """DETR's decoder layer with conditional attentions; it reads `QueryPlace.sine`.

    If `mask_padding` is False, queries also attend to tokens outside their image. The papers' code masks these tokens
    in encoder and decoder; detrex's port forgets it in the decoder: False gives its numbers for its weights.
    """

    attention_to_image: type[ConditionalCrossAttention] = ConditionalCrossAttention

    def __init__(
        self,
        *,
        embed_dim: int = 256,
        num_heads: int = 8,
        ffn_dim: int = 2048,
        dropout: float = 0.1,
        activation: nn.Module | None = None,
        mask_padding: bool = True,
    ) -> None:
        super().__init__(
            embed_dim=embed_dim, num_heads=num_heads, ffn_dim=ffn_dim, dropout=dropout, activation=activation
        )
        self.self_attn = ConditionalSelfAttention(embed_dim=embed_dim, num_heads=num_heads, dropout=dropout)
        self.cross_attn = self.attention_to_image(embed_dim=embed_dim, num_heads=num_heads, dropout=dropout)
        self.mask_padding = mask_padding

    def _attend_each_other(self, x: Tensor, position: Tensor, blocked: Tensor | None) -> Tensor:
        return self.self_attn(x, position, blocked=blocked)

    def _attend_image(self, x: Tensor, place: QueryPlace, memory: Memory) -> Tensor:
        return self.cross_attn(x, place, memory, padding=memory.padding if self.mask_padding else None)


class FirstConditionalDecoderLayer(ConditionalDecoderLayer):
    """`ConditionalDecoderLayer` for the first layer of a decoder, with `FirstConditionalCrossAttention`."""

    attention_to_image = FirstConditionalCrossAttention


def _sine_of(place: QueryPlace) -> Tensor:
    """Return the encoded references of the queries, (B, Q, C). Raise ConfigError if they have none."""
    if place.sine is None:
        raise ConfigError(
            "The queries have no encoded references, which conditional attention compares with tokens' positions: set "
            "model.decoder.query_position to a module that makes them, such as ConditionalPosition."
        )
    return place.sine
