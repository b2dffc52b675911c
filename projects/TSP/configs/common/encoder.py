"""TSP's transformer: six pre-norm layers of 512 channels and a final norm, for points and for boxes."""

from detectron2.config import LazyCall as L
from torch import nn

from align_detr.modeling import Encoder, PreNormEncoderLayer

encoder = L(Encoder)(
    layer=L(PreNormEncoderLayer)(embed_dim=512, num_heads=8, ffn_dim=2048, dropout=0.1),
    num_layers=6,
    norm=L(nn.LayerNorm)(normalized_shape=512),
)
