"""Conditional attention: contents and positions are compared apart from one another (Conditional-DETR, Meng et al.
2021, section 3.3), and the decoder layers made of it, which DAB-DETR, DN-DETR and Group-DETR share.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from align_detr.modeling.decoder_layers import DecoderLayer
from align_detr.structures import Memory, QueryPlace


class SplitProjectionAttention(nn.Module):
    """What the two attentions below share: contents and positions have projections of their own, values are contents
    alone.
    """

    def __init__(self, *, embed_dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.dropout = dropout
        self.query_content = nn.Linear(embed_dim, embed_dim)
        self.key_content = nn.Linear(embed_dim, embed_dim)
        self.key_position = nn.Linear(embed_dim, embed_dim)
        self.value = nn.Linear(embed_dim, embed_dim)
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        nn.init.zeros_(self.out_proj.bias)

    def _split(self, x: Tensor) -> Tensor:
        """(B, Q, C) -> (B, H, Q, C / H)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, blocked: Tensor | None) -> Tensor:
        """query (B, H, Q, D), key (B, H, S, D), value (B, H, S, C / H) -> (B, Q, C), with the scale 1 / sqrt(D)."""
        out = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=None if blocked is None else ~blocked,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out_proj(out.transpose(1, 2).flatten(2))


class ConditionalSelfAttention(SplitProjectionAttention):
    """Attention among queries: projected contents and positions are added up, for queries and for keys."""

    def __init__(self, *, embed_dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__(embed_dim=embed_dim, num_heads=num_heads, dropout=dropout)
        self.query_position = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor, position: Tensor, *, blocked: Tensor | None = None) -> Tensor:
        """x, position (B, Q, C) -> (B, Q, C); `blocked` (Q, Q) or (B, 1, Q, Q) is True where a query may not look."""
        query = self.query_content(x) + self.query_position(position)
        key = self.key_content(x) + self.key_position(position)
        return self._attend(self._split(query), self._split(key), self._split(self.value(x)), blocked)


class ConditionalCrossAttention(SplitProjectionAttention):
    """Attention of queries to tokens: each head compares the content of the query with that of the token, and the
    encoded reference of the query with the position of the token; the logit is the sum of the two (equation 2).

    It is one product of vectors twice as long as a head's values, and scaled accordingly.
    """

    def __init__(self, *, embed_dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__(embed_dim=embed_dim, num_heads=num_heads, dropout=dropout)
        self.query_sine = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor, place: QueryPlace, memory: Memory, *, padding: Tensor | None = None) -> Tensor:
        """x (B, Q, C), with `place.position` and `place.sine` -> (B, Q, C); `padding` (B, S) is True for tokens to
        ignore.
        """
        key_position = self.key_position(memory.position)
        query, key = self._project_contents(x, place, memory, key_position)
        query = torch.cat([self._split(query), self._split(self.query_sine(place.sine))], dim=-1)
        key = torch.cat([self._split(key), self._split(key_position)], dim=-1)
        blocked = None if padding is None else padding[:, None, None, :]
        return self._attend(query, key, self._split(self.value(memory.tokens)), blocked)

    def _project_contents(
        self, x: Tensor, place: QueryPlace, memory: Memory, key_position: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The contents of queries (B, Q, C) and keys (B, S, C), projected."""
        return self.query_content(x), self.key_content(memory.tokens)


class FirstConditionalCrossAttention(ConditionalCrossAttention):
    """The same with positions also added to the contents, as the papers' code has it in the first layer, whose queries
    start without content.
    """

    def __init__(self, *, embed_dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__(embed_dim=embed_dim, num_heads=num_heads, dropout=dropout)
        self.query_position = nn.Linear(embed_dim, embed_dim)

    def _project_contents(
        self, x: Tensor, place: QueryPlace, memory: Memory, key_position: Tensor
    ) -> tuple[Tensor, Tensor]:
        query, key = super()._project_contents(x, place, memory, key_position)
        return query + self.query_position(place.position), key + key_position


class ConditionalDecoderLayer(DecoderLayer):
    """DETR's decoder layer with conditional attentions. It needs `QueryPlace.sine`.

    Without `mask_padding`, queries also look at tokens outside their image. The papers' own code masks these, as the
    encoder does; detrex's port forgot it in the decoder, and False gives its numbers for weights trained with it.
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
    """The first of them: see `FirstConditionalCrossAttention`."""

    attention_to_image = FirstConditionalCrossAttention
