"""A decoder layer: each block's update is multiplied by a learned number per channel (LayerScale)."""

import torch
from torch import nn

from align_detr import model_zoo
from align_detr.modeling import PreNormDecoderLayer


class ScaledDecoderLayer(PreNormDecoderLayer):
    """Decoder layer whose three blocks start small: `scale` times what they add to the contents."""

    def __init__(self, *, embed_dim: int = 256, scale: float = 0.1, **options) -> None:
        super().__init__(embed_dim=embed_dim, **options)
        self.scales = nn.ParameterList(torch.full((embed_dim,), scale) for _ in range(3))

    def exchange(self, x, place):
        """Return the contents after self-attention, (B, Q, C)."""
        return x + self.scales[0] * (super().exchange(x, place) - x)

    def observe(self, x, place, memory):
        """Return the contents after cross-attention to the image, (B, Q, C)."""
        return x + self.scales[1] * (super().observe(x, place, memory) - x)

    def transform(self, x, ffn=None):
        """Return the contents after the feed-forward block, (B, Q, C)."""
        return x + self.scales[2] * (super().transform(x, ffn) - x)


model = model_zoo.get_config("quickstart/digits_detr.py").model
model.decoder.layer["_target_"] = ScaledDecoderLayer  # the sizes stay
