"""Attention with the logarithm of a Gaussian prior added to its logits."""

import torch
from torch import Tensor

from align_detr.layers.attention import ProjectedAttention, attention_weights
from align_detr.layers.dropout import attend


class ModulatedAttention(ProjectedAttention):
    """Scaled dot-product attention with the logarithm of a spatial prior added (SMCA, Gao et al. 2021, section 3.2)."""

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, log_prior: Tensor, padding: Tensor | None = None
    ) -> Tensor:
        """Attend from query (B, Q, C) to key and value (B, S, C) -> (B, Q, C).

        log_prior (B, H, Q, S); padding (B, S) is True for keys to ignore.
        """
        q, k, v = self._project(query, key, value)
        log_prior = inside_image(log_prior, padding)
        # A constant per query changes no weight. With the largest entry at 0, half precision suffices even for a centre
        # far from the image.
        log_prior = log_prior - log_prior.detach().amax(-1, keepdim=True)
        dropout = self.dropout if self.training else 0.0
        out = attend(q, k, v, mask=log_prior.to(q.dtype), dropout_p=dropout)
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def weights(
        self,
        chosen: slice,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        log_prior: Tensor,
        padding: Tensor | None = None,
    ) -> Tensor:
        """Return the weights that `forward` gives the keys for the `chosen` queries: (B, H, q, S) float32."""
        q, k, _ = self._project(query[:, chosen], key, value)
        return attention_weights(q, k, inside_image(log_prior[:, :, chosen], padding))


def inside_image(log_prior: Tensor, padding: Tensor | None) -> Tensor:
    """Return the prior (B, H, Q, S) with minus infinity where `padding` (B, S) is True."""
    return log_prior if padding is None else log_prior.masked_fill(padding[:, None, None], -torch.inf)


def log_gaussian(centre: Tensor, factor: Tensor, shape: tuple[int, int], smooth: float) -> Tensor:
    """Return -((x - centre_x)^2 factor_x + (y - centre_y)^2 factor_y) / smooth at every cell (SMCA, section 3.2).

    The cells (x, y) = (0, 0), (1, 0), ... are those of a map of `shape` (h, w), row by row: centre (in cells) and
    factor (..., 2) -> (..., h * w).
    """
    x, y = (
        (torch.arange(n, device=centre.device) - centre[..., i, None]).square() * factor[..., i, None] / -smooth
        for i, n in enumerate((shape[1], shape[0]))
    )
    return (y[..., :, None] + x[..., None, :]).flatten(-2)
