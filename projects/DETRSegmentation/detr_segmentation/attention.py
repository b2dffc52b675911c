"""Attention maps of queries over the encoded image, as features of masks."""

import torch
from torch import Tensor, nn

from align_detr.errors import ConfigError


class BoxAttention(nn.Module):
    """Multi-head attention maps between decoded queries and encoded tokens (DETR, section 4.4 and figure 8): no values,
    the maps themselves are the output.

    The paper does not say over what the softmax goes. As in the released code, whose weights need it, it goes over all
    heads and tokens together: the maps of a query add up to 1.
    """

    def __init__(self, *, embed_dim: int = 256, num_heads: int = 8) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ConfigError(f"embed_dim {embed_dim} is not a multiple of num_heads {num_heads}: change one of them.")
        self.num_heads = num_heads
        self.query = nn.Linear(embed_dim, embed_dim)
        self.key = nn.Linear(embed_dim, embed_dim)
        for linear in (self.query, self.key):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self, hidden: Tensor, tokens: Tensor, image: Tensor, *, boxes: Tensor, cells: Tensor, padding: Tensor | None
    ) -> Tensor:
        """Return the maps (M, H, h, w) of queries hidden (M, C) over the tokens (B, C, h, w) of the images `image`
        (M,).

        boxes (M, 4) are the queries' boxes, normalised cxcywh; cells (B, 2) float32 is each image's own width and
        height in cells of the map; `padding` (B, h * w) is True for tokens to ignore, or None.
        """
        heads, shape = (self.num_heads, -1), tokens.shape[-2:]
        query = self.query(hidden).unflatten(-1, heads)  # (M, H, D)
        key = self.key(tokens.flatten(2).transpose(1, 2)).unflatten(-1, heads).movedim(1, -1)[image]  # (M, H, D, S)
        logits = (query.unsqueeze(-2) * query.shape[-1] ** -0.5 @ key).squeeze(-2).float()  # (M, H, S)
        if padding is not None:
            logits = logits.masked_fill(padding[image, None], -torch.inf)
        logits = logits.unflatten(-1, shape)
        return self.normalize(logits, boxes, cells[image]).to(query.dtype)

    def normalize(self, logits: Tensor, boxes: Tensor, cells: Tensor) -> Tensor:
        """Return the maps (M, H, h, w) of their logits; boxes (M, 4) and cells (M, 2) as in `forward`."""
        return logits.flatten(1).softmax(-1).view_as(logits)


class GaussianBoxAttention(BoxAttention):
    """`BoxAttention` around each query's box, for detectors whose boxes start from references: their queries need not
    know where they are, as the box is relative, and the maps could hardly find their objects.

    To the logits comes the logarithm of a Gaussian at the centre of the box, which has no gradient: exp(-2) in the
    middle of its sides (SMCA's prior, with the box in place of learned scales). The products of queries and keys start
    at 0, so that the maps start as the Gaussian. They are `gain` exp(logit - largest logit of the map), whatever the
    number of tokens: a few maps have to be heard among many more channels of the image, which the released form, with
    its maps near 1 / (heads x tokens), learns in a long training only. Released weights of `BoxAttention` have the same
    tensors and mean other maps. This is not in the paper.
    """

    def __init__(self, *, embed_dim: int = 256, num_heads: int = 8, gain: float = 10.0) -> None:
        super().__init__(embed_dim=embed_dim, num_heads=num_heads)
        self.gain = gain
        nn.init.zeros_(self.query.weight)

    def normalize(self, logits: Tensor, boxes: Tensor, cells: Tensor) -> Tensor:
        """Return the maps (M, H, h, w) of their logits; boxes (M, 4) and cells (M, 2) as in `forward`."""
        centre, size = boxes.detach().float().split(2, dim=-1)
        centre, half = centre * cells, (size * cells).clamp(min=1.0) / 2  # in cells; at least one wide
        x, y = (
            (torch.arange(n, device=boxes.device) + 0.5 - centre[:, i, None]).div(half[:, i, None]).square()
            for i, n in enumerate((logits.shape[-1], logits.shape[-2]))
        )
        logits = logits - 2 * (y[:, None, :, None] + x[:, None, None, :])
        return self.gain * (logits - logits.amax((2, 3), keepdim=True)).exp()
