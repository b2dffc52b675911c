"""Attention with the logarithm of a Gaussian prior added to its logits."""

from collections.abc import Sequence

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
        out = self._attend(q, k, v, inside_image(log_prior, padding))
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

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, log_prior: Tensor) -> Tensor:
        """Attend from q (B, H, Q, D) to k and v (B, H, S, D) -> (B, H, Q, D); log_prior (B, H, Q, S)."""
        # A constant per query changes no weight. With the largest entry at 0, half precision suffices even for a centre
        # far from the image.
        log_prior = log_prior - log_prior.detach().amax(-1, keepdim=True)
        dropout = self.dropout if self.training else 0.0
        return attend(q, k, v, mask=log_prior.to(q.dtype), dropout_p=dropout)


class ScaleSelectiveAttention(ModulatedAttention):
    """`ModulatedAttention` to the tokens of each scale by itself; each query weighs the results of the scales by its
    `shares` and adds them up (SMCA, Gao et al. 2021, section 3.3).

    The scales have their projections in common: projections per scale would be 1.6 million parameters more than the
    paper's 40 million leave.
    """

    def forward(  # type: ignore[override]  # what it needs more are keyword arguments without a default
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        log_prior: Tensor,
        shares: Tensor,
        lengths: Sequence[int],
        padding: Tensor | None = None,
    ) -> Tensor:
        """Attend from query (B, Q, C) to key and value (B, S, C) -> (B, Q, C).

        log_prior (B, H, Q, S); shares (B, Q, L) of the L scales, whose numbers of tokens are `lengths`; padding (B, S)
        is True for keys to ignore, of which no scale has only such.
        """
        q, k, v = self._project(query, key, value)
        priors = inside_image(log_prior, padding).split(list(lengths), dim=-1)
        of_scales = zip(k.split(list(lengths), dim=2), v.split(list(lengths), dim=2), priors, strict=True)
        share = shares.to(q.dtype).unbind(-1)  # L of (B, Q)
        outs = [self._attend(q, *scale) * a[:, None, :, None] for scale, a in zip(of_scales, share, strict=True)]
        return self.out_proj(torch.stack(outs).sum(0).transpose(1, 2).flatten(2))

    def weights(  # type: ignore[override]  # as `forward`
        self,
        chosen: slice,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        log_prior: Tensor,
        shares: Tensor,
        lengths: Sequence[int],
        padding: Tensor | None = None,
    ) -> Tensor:
        """Return the weights that `forward` gives the keys of all scales for the `chosen` queries, with a sum of 1:
        (B, H, q, S) float32.
        """
        q, k, _ = self._project(query[:, chosen], key, value)
        priors = inside_image(log_prior[:, :, chosen], padding).split(list(lengths), dim=-1)
        of_scales = zip(k.split(list(lengths), dim=2), priors, shares[:, chosen].float().unbind(-1), strict=True)
        return torch.cat([attention_weights(q, keys, prior) * a[:, None, :, None] for keys, prior, a in of_scales], -1)


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
