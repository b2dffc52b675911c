"""From decoded queries to classes and boxes."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from align_detr.errors import ConfigError
from align_detr.layers.boxes import inverse_sigmoid
from align_detr.layers.mlp import MLP
from align_detr.structures import Predictions


class Head(Protocol):
    """The interface of a decoder's head."""

    def __call__(self, hidden: Tensor, references: Sequence[Tensor] | None) -> Predictions:
        """Predict classes and boxes: hidden (R, B, Q, C), references R of (B, Q, 2 or 4) or None -> a set of R rows."""


@runtime_checkable
class RefiningHead(Head, Protocol):
    """The interface of a head for a decoder with `refine`."""

    def refine(self, x: Tensor, reference: Tensor, layer: int) -> Tensor:
        """Move the references by the correction of layer `layer`: x (B, Q, C), reference (B, Q, 2 or 4) -> (B, Q, 4),
        with gradient.
        """


@runtime_checkable
class ClassifyingHead(Head, Protocol):
    """The interface of a head whose classes can be read between the layers."""

    def classify(self, x: Tensor, layer: int) -> Tensor:
        """Return the logits of layer `layer`: normed output x (B, Q, C) -> (B, Q, K or K + 1)."""


class SoftmaxHead(nn.Module):
    """One linear classifier over K classes and "no object", and one three-layer MLP for boxes, shared by all layers
    (DETR, section 3.2).
    """

    def __init__(self, *, num_classes: int = 80, embed_dim: int = 256) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.class_embed = nn.Linear(embed_dim, num_classes + 1)
        self.bbox_embed = MLP(embed_dim, embed_dim, 4, 3)

    def forward(self, hidden: Tensor, references: Sequence[Tensor] | None = None) -> Predictions:
        """Predict logits (R, B, Q, K + 1) and boxes (R, B, Q, 4), normalised cxcywh, in float32, from hidden
        (R, B, Q, C). References are ignored.
        """
        return Predictions(
            logits=self.class_embed(hidden).float(), boxes=self.bbox_embed(hidden).float().sigmoid(), softmax=True
        )


class SharedHead(nn.Module):
    """One linear classifier with a sigmoid per class, and one three-layer MLP that moves a reference to a box, shared
    by all layers (Conditional-DETR, DAB-DETR, plain Deformable-DETR).

    Every class starts with probability `prior`. Boxes start at their reference; if it is a point, `size_logit` is the
    logit of their initial width and height. `eps` as in `inverse_sigmoid`. With `softmax` the classifier is that of
    `SoftmaxHead`, over K classes and "no object", and `prior` is not used.
    """

    def __init__(
        self,
        *,
        num_classes: int = 80,
        embed_dim: int = 256,
        softmax: bool = False,
        prior: float = 0.01,
        size_logit: float = 0.0,
        eps: float = 1e-3,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.softmax = softmax
        self.eps = eps
        self.class_embed = linear_classifier(embed_dim, num_classes, prior, softmax)
        self.bbox_embed = box_correction(embed_dim, size_logit)

    def forward(self, hidden: Tensor, references: Sequence[Tensor] | None) -> Predictions:
        """Predict logits (R, B, Q, K, or K + 1 with `softmax`) and boxes (R, B, Q, 4), normalised cxcywh, in float32,
        from hidden (R, B, Q, C) and references, R of (B, Q, 2 or 4). Raise ConfigError without references.
        """
        references = _require_references(references, self)
        corrections = self.bbox_embed(hidden)
        boxes = [move_reference(c, r, self.eps) for c, r in zip(corrections, references, strict=True)]
        return Predictions(logits=self.class_embed(hidden).float(), boxes=torch.stack(boxes), softmax=self.softmax)

    def refine(self, x: Tensor, reference: Tensor, layer: int) -> Tensor:
        """Move the references by the correction of layer `layer`: x (B, Q, C), reference (B, Q, 2 or 4) -> (B, Q, 4),
        with gradient.
        """
        return move_reference(self.bbox_embed(x), reference, self.eps)

    def classify(self, x: Tensor, layer: int) -> Tensor:
        """Return the logits, the same for every layer: x (B, Q, C) -> (B, Q, K or K + 1) float32."""
        return self.class_embed(x).float()


class LayerwiseHead(nn.Module):
    """`SharedHead` with a separate classifier and box MLP for each of `num_layers` layers (Deformable-DETR with box
    refinement, DINO).

    `size_logit` is that of the first layer: later references are boxes, even if the first ones are points.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        num_classes: int = 80,
        embed_dim: int = 256,
        softmax: bool = False,
        prior: float = 0.01,
        size_logit: float = 0.0,
        eps: float = 1e-3,
    ) -> None:
        super().__init__()
        self.num_layers = num_layers
        self.num_classes = num_classes
        self.softmax = softmax
        self.eps = eps
        self.class_embed = nn.ModuleList(
            linear_classifier(embed_dim, num_classes, prior, softmax) for _ in range(num_layers)
        )
        self.bbox_embed = nn.ModuleList(
            box_correction(embed_dim, size_logit if i == 0 else 0.0) for i in range(num_layers)
        )

    def check_model(self, model: Any) -> None:
        """Raise ConfigError if the decoder has another number of layers."""
        layers = len(model.decoder.layers)
        if self.num_layers != layers:
            raise ConfigError(
                f"model.head.num_layers is {self.num_layers}, but model.decoder.num_layers is {layers}: give both the "
                "same number."
            )

    def forward(self, hidden: Tensor, references: Sequence[Tensor] | None) -> Predictions:
        """Predict logits (R, B, Q, K, or K + 1 with `softmax`) and boxes (R, B, Q, 4), normalised cxcywh, in float32,
        from hidden (R, B, Q, C) and references, R of (B, Q, 2 or 4). Raise ConfigError without references.
        """
        references = _require_references(references, self)
        logits = [classify(x) for classify, x in zip(self.class_embed, hidden, strict=True)]
        boxes = [self.refine(x, reference, i) for i, (x, reference) in enumerate(zip(hidden, references, strict=True))]
        return Predictions(logits=torch.stack(logits).float(), boxes=torch.stack(boxes), softmax=self.softmax)

    def refine(self, x: Tensor, reference: Tensor, layer: int) -> Tensor:
        """Move the references by the correction of layer `layer`: x (B, Q, C), reference (B, Q, 2 or 4) -> (B, Q, 4),
        with gradient.
        """
        return move_reference(self.bbox_embed[layer](x), reference, self.eps)

    def classify(self, x: Tensor, layer: int) -> Tensor:
        """Return the logits of layer `layer`: x (B, Q, C) -> (B, Q, K or K + 1) float32."""
        return self.class_embed[layer](x).float()


class LayerwiseIoUHead(LayerwiseHead):
    """`LayerwiseHead` with a linear branch per layer that predicts the IoU of each box with its object (IoU-Net, Jiang
    et al. 2018, in the form of Align-DETR's table 4). Train it with `IoUBranchLoss`.
    """

    def __init__(self, *, num_layers: int, embed_dim: int = 256, **others: Any) -> None:
        super().__init__(num_layers=num_layers, embed_dim=embed_dim, **others)
        self.iou_embed = nn.ModuleList(nn.Linear(embed_dim, 1) for _ in range(num_layers))

    def forward(self, hidden: Tensor, references: Sequence[Tensor] | None) -> Predictions:
        """Predict as `LayerwiseHead`, with `iou` logits (R, B, Q)."""
        iou = [embed(x).squeeze(-1) for embed, x in zip(self.iou_embed, hidden, strict=True)]
        return dataclasses.replace(super().forward(hidden, references), iou=torch.stack(iou).float())


def _require_references(references: Sequence[Tensor] | None, head: nn.Module) -> Sequence[Tensor]:
    """Return the references. Raise ConfigError if the queries have none."""
    if references is None:
        raise ConfigError(
            f"model.head is {type(head).__name__}, whose boxes start from references, but model.queries provides none: "
            "use a source of queries with references, or SoftmaxHead."
        )
    return references


def linear_classifier(embed_dim: int, num_classes: int, prior: float, softmax: bool) -> nn.Linear:
    """Build a `prior_classifier` of K classes or, with `softmax`, DETR's classifier of K classes and "no object"."""
    return nn.Linear(embed_dim, num_classes + 1) if softmax else prior_classifier(embed_dim, num_classes, prior)


def prior_classifier(embed_dim: int, num_classes: int, prior: float) -> nn.Linear:
    """Build a linear classifier whose classes all start near probability `prior` (RetinaNet, section 4.1)."""
    classifier = nn.Linear(embed_dim, num_classes)
    nn.init.constant_(classifier.bias, -math.log((1 - prior) / prior))
    return classifier


def box_correction(embed_dim: int, size_logit: float = 0.0) -> MLP:
    """Build a three-layer MLP whose output starts at 0, except for `size_logit` in width and height."""
    mlp = MLP(embed_dim, embed_dim, 4, 3)
    last = cast(nn.Linear, mlp.layers[-1])  # PyTorch's ModuleList is not typed by its items
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    nn.init.constant_(last.bias[2:], size_logit)
    return mlp


def move_reference(correction: Tensor, reference: Tensor, eps: float) -> Tensor:
    """Add a correction (..., 4) to the logits of a reference point (..., 2) or box (..., 4) and return the normalised
    cxcywh box (..., 4) in float32 (Deformable-DETR, section 4.1 and equation 5 of its supplement).
    """
    start = inverse_sigmoid(reference, eps)
    if start.shape[-1] == 2:
        start = nn.functional.pad(start, (0, 2))  # a point has no size: the correction alone gives it
    return (correction.float() + start).sigmoid()
