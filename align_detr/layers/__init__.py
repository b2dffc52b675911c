"""Layers that know neither targets nor configs. The public ones by name; box operations are in `layers.boxes`."""

from align_detr.layers.attention import FeedForward, MultiHeadAttention
from align_detr.layers.deformable_attention import MultiScaleDeformableAttention
from align_detr.layers.mlp import MLP
from align_detr.layers.positional import LearnedPositionEncoding, SinePositionEncoding

__all__ = [
    "MLP",
    "FeedForward",
    "LearnedPositionEncoding",
    "MultiHeadAttention",
    "MultiScaleDeformableAttention",
    "SinePositionEncoding",
]
