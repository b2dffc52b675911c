"""Row-column decoupled attention."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RowColumnAttention(nn.Module):
    """Attention along the rows of a map, then along its columns (RCDA; Anchor-DETR, Wang et al. 2022).

    The weight of a cell is the product of two softmax weights, of its x and of its y, so that no query is compared with
    every cell. Row keys, one per x, are means over the height; column keys, one per y, are means over the width. The
    means are over the image's own part; `average_padding` includes the padding, as the port does, whose results depend
    on the batch. The five projections are one parameter, in the order row query, column query, row key, column key,
    value. Raise ValueError if `embed_dim` is not a multiple of `num_heads`.
    """

    def __init__(self, *, embed_dim: int, num_heads: int, average_padding: bool = False) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} is not a multiple of num_heads {num_heads}: change one of them.")
        self.num_heads = num_heads
        self.average_padding = average_padding
        self.in_proj_weight = nn.Parameter(torch.empty(5 * embed_dim, embed_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(5 * embed_dim))
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        row_query: Tensor,
        column_query: Tensor,
        row_key: Tensor,
        column_key: Tensor,
        value: Tensor,
        *,
        shape: tuple[int, int],
        padding: Tensor | None = None,
    ) -> Tensor:
        """Attend from queries (B, Q, C) to keys and value (B, h * w, C) of a map of `shape` (h, w) -> (B, Q, C).

        `padding` (B, h * w) is True outside the image, which covers the top left of the map.
        """
        along_x, along_y, v = self._along_axes(
            (row_query, column_query), (row_key, column_key), value, shape=shape, padding=padding
        )
        row_values = along_x[:, :, None] @ v.unflatten(2, shape)  # (B, H, h, Q, C / H)
        out = torch.einsum("bnqh,bnhqd->bnqd", along_y, row_values)
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def weights(
        self,
        chosen: slice,
        row_query: Tensor,
        column_query: Tensor,
        row_key: Tensor,
        column_key: Tensor,
        value: Tensor,
        *,
        shape: tuple[int, int],
        padding: Tensor | None = None,
    ) -> Tensor:
        """Return the weights that `forward` gives the cells, products of those along the two axes, for the `chosen`
        queries: (B, H, q, h * w) float32.
        """
        queries = (row_query[:, chosen], column_query[:, chosen])
        along_x, along_y, _ = self._along_axes(queries, (row_key, column_key), value, shape=shape, padding=padding)
        return (along_y[..., :, None].float() * along_x[..., None, :].float()).flatten(-2)

    def _along_axes(
        self,
        queries: tuple[Tensor, Tensor],
        keys: tuple[Tensor, Tensor],
        value: Tensor,
        *,
        shape: tuple[int, int],
        padding: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the weights along x (B, H, Q, w) and along y (B, H, Q, h), and the values (B, H, h * w, C / H)."""
        outside = None if padding is None else padding.unflatten(1, shape)
        not_averaged = None if self.average_padding else outside
        # The projection of a mean equals the mean of the projections and costs less.
        row_key, column_key = (
            mean_of_image(key.unflatten(1, shape), not_averaged, dim=dim) for dim, key in enumerate(keys, start=1)
        )
        q_row, q_column, k_row, k_column, v = (
            F.linear(x, weight, bias).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for x, weight, bias in zip(
                (*queries, row_key, column_key, value),
                self.in_proj_weight.chunk(5),
                self.in_proj_bias.chunk(5),
                strict=True,
            )
        )
        along_x = attention_weights(q_row, k_row, None if outside is None else outside[:, 0])
        along_y = attention_weights(q_column, k_column, None if outside is None else outside[:, :, 0])
        return along_x, along_y, v


def attention_weights(query: Tensor, key: Tensor, outside: Tensor | None) -> Tensor:
    """Return the softmax weights of query (B, H, Q, d) on key (B, H, n, d), outside (B, n): (B, H, Q, n)."""
    logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if outside is not None:
        logits = logits.masked_fill(outside[:, None, None], -torch.inf)
    return logits.softmax(-1).to(query.dtype)


def mean_of_image(x: Tensor, outside: Tensor | None, dim: int) -> Tensor:
    """Average x (B, h, w, C) over the height (`dim` 1) or the width (2) -> (B, w or h, C).

    Cells that are `outside` (B, h, w) do not count; a line that lies outside altogether gives 0.
    """
    if outside is None:
        return x.mean(dim)
    inside = (~outside)[..., None].to(x.dtype)
    return (x * inside).sum(dim) / inside.sum(dim).clamp(min=1)
