"""From decoded queries to classes and boxes."""

from torch import Tensor, nn

from align_detr.layers.mlp import MLP
from align_detr.structures import Predictions


class SoftmaxHead(nn.Module):
    """One linear classifier over K classes and "no object", and one three-layer perceptron for boxes, shared by all
    layers (DETR, section 3.2).
    """

    def __init__(self, *, num_classes: int = 80, embed_dim: int = 256) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.class_embed = nn.Linear(embed_dim, num_classes + 1)
        self.bbox_embed = MLP(embed_dim, embed_dim, 4, 3)

    def forward(self, hidden: Tensor) -> Predictions:
        """hidden (R, B, Q, C) -> logits (R, B, Q, K + 1) and boxes (R, B, Q, 4) normalised cxcywh, float32."""
        return Predictions(
            logits=self.class_embed(hidden).float(), boxes=self.bbox_embed(hidden).float().sigmoid(), softmax=True
        )
