"""The predictors of TSP-RCNN: classes and boxes of encoded proposals."""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from align_detr.layers.mlp import MLP
from align_detr.projects.tsp.rcnn.rois import BoxCoder


class SoftmaxClassifier(nn.Module):
    """One linear layer over K classes and background."""

    softmax = True

    def __init__(self, *, num_classes: int = 80, embed_dim: int = 512) -> None:
        super().__init__()
        self.linear = nn.Linear(embed_dim, num_classes + 1)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Classify: hidden (B, Q, C) -> logits (B, Q, K + 1) float32, background last."""
        return self.linear(hidden).float()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return (B, Q, K + 1), background last, as detectron2's post-processing expects it."""
        return logits.softmax(-1)


class SigmoidClassifier(nn.Module):
    """One linear layer over K classes, for losses on sigmoid logits; every probability starts at `prior`."""

    softmax = False

    def __init__(self, *, num_classes: int = 80, embed_dim: int = 512, prior: float = 0.01) -> None:
        super().__init__()
        self.linear = nn.Linear(embed_dim, num_classes)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.constant_(self.linear.bias, math.log(prior / (1 - prior)))

    def forward(self, hidden: Tensor) -> Tensor:
        """Classify: hidden (B, Q, C) -> logits (B, Q, K) float32."""
        return self.linear(hidden).float()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return (B, Q, K + 1) with a last column of zeros, where detectron2's post-processing expects background."""
        return F.pad(logits.sigmoid(), (0, 1))


Classifier = SoftmaxClassifier | SigmoidClassifier


class ClassBoxes(nn.Module):
    """A three-layer MLP that predicts box deltas for every class; `weights` are those of `BoxCoder`."""

    def __init__(
        self, *, num_classes: int = 80, embed_dim: int = 512, weights: Sequence[float] = (10.0, 10.0, 5.0, 5.0)
    ) -> None:
        super().__init__()
        x, y, width, height = (float(value) for value in weights)
        self.coder = BoxCoder(weights=(x, y, width, height))
        self.mlp = MLP(embed_dim, embed_dim, 4 * num_classes, 3)
        last = self.mlp.layers[-1]
        nn.init.normal_(last.get_parameter("weight"), std=0.001)
        nn.init.zeros_(last.get_parameter("bias"))

    def forward(self, hidden: Tensor) -> Tensor:
        """Predict boxes: hidden (B, Q, C) -> deltas (B, Q, D, 4) float32, for D box classes."""
        return self.mlp(hidden).float().unflatten(-1, (-1, 4))


class AgnosticBoxes(ClassBoxes):
    """ClassBoxes with one box for all classes, which can be the proposal of the next stage."""

    def __init__(self, *, embed_dim: int = 512, weights: Sequence[float] = (10.0, 10.0, 5.0, 5.0)) -> None:
        super().__init__(num_classes=1, embed_dim=embed_dim, weights=weights)
