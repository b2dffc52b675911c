"""DAB-DETR with a ResNet-50 (Liu et al. 2022): 300 anchors, no dropout, PReLU, class weight 1.

Token positions have temperature 20, as in the paper; anchors keep 10000, as in the released code. Evaluation is that of
the authors' code, whose weights load (`align_detr/checkpoint/conditional.py`): 300 detections, logits bounded with 1e-3
(read in a copy of their repository). It differs in training: nothing is added to the overlaps instead of 1e-6, and res2
is frozen, too (freeze_at=2).
"""

from detectron2.config import LazyCall as L
from torch import nn

from align_detr.modeling import (
    DABDETR,
    AnchorPosition,
    AnchorQueries,
    ConditionalDecoderLayer,
    EncoderLayer,
    FirstConditionalDecoderLayer,
    ScaledPositionEncoder,
    class_loss_of,
)

from .conditional_detr_r50 import model

sizes = dict(embed_dim=256, num_heads=8, ffn_dim=2048, dropout=0.0, activation=L(nn.PReLU)())

model._target_ = DABDETR
model.neck.position.temperature = 20
model.encoder = L(ScaledPositionEncoder)(layer=L(EncoderLayer)(**sizes), num_layers=6, embed_dim=256)
model.queries = L(AnchorQueries)(num_queries=300, embed_dim=256)
model.decoder.update(
    layer=L(ConditionalDecoderLayer)(**sizes),
    first_layer=L(FirstConditionalDecoderLayer)(**sizes),
    query_position=L(AnchorPosition)(embed_dim=256, temperature=10000),
    refine=True,
    look_forward_twice=True,  # as in the released code, a layer's loss reaches the layer before through its reference
)
class_loss_of(model.criterion).weight = 1.0
