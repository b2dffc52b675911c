"""One switch: a detector for prediction alone."""

import contextlib
import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from align_detr.errors import ConfigError, EnvironmentProblem
from align_detr.inference.optimized.folding import fold_norms
from align_detr.inference.optimized.fused import Kernels, has_bfloat16
from align_detr.inference.optimized.parts import LastLayerDecoder, has_last_layer
from align_detr.inference.optimized.replacing import Replacements
from align_detr.modeling.meta_arch import DETR
from align_detr.modeling.routes import RoutedDecoder

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def optimize_for_inference(model: nn.Module, *, precision: str = "float32") -> "OptimizedDetector":
    """Return a copy of a detector that finds the same and is faster, on the device where `model` is; `model` stays.

    model: a detector of this library, or of detectron2. Batch norms are folded into convolutions, weights and maps are
    laid out for the device's kernels, what depends on the image size alone is kept for the last sizes, and what only
    losses read is left out: criterion, heads of the layers before the last, boxes of tokens that are not proposed.
    Parts of other classes than the library's stay as they are.

    precision: "float32", whose scores and normalised boxes are within 1e-4 of the model's, or "bfloat16", for
    processors with instructions for it.

    The copy has its own weights. It can be copied and pickled, but neither trained nor moved to another device:
    optimize again, also for other weights.
    Raise ConfigError for what is no detector, and EnvironmentProblem without bfloat16 instructions.
    """
    if not isinstance(model, nn.Module) or not isinstance(getattr(model, "backbone", None), nn.Module):
        raise ConfigError(
            f"A {type(model).__name__} has no backbone and cannot be optimized: pass a detector of this library or of "
            "detectron2, without a wrapper such as DistributedDataParallel."
        )
    if precision not in PRECISIONS:
        raise ConfigError(f"precision is {precision!r}, but must be one of {', '.join(PRECISIONS)}: choose one.")
    weight = next(model.parameters())
    if weight.dtype != torch.float32:
        raise ConfigError(
            f"The model's weights are {weight.dtype}, but float32 is optimized: call model.float() first, and choose "
            "the type of the copy by precision."
        )
    if precision == "bfloat16" and not has_bfloat16(weight.device):
        raise EnvironmentProblem(f"The {weight.device.type} has no bfloat16 instructions: set precision to float32.")
    return OptimizedDetector(
        _rewritten(model, Kernels(weight.device, PRECISIONS[precision])), precision=PRECISIONS[precision]
    )


def _rewritten(model: nn.Module, kernels: Kernels) -> Any:
    """Return a copy of a model with other parts."""
    criterion = getattr(model, "criterion", None)
    copied: Any = copy.deepcopy(model, {} if criterion is None else {id(criterion): None})
    copied.eval().requires_grad_(False)
    fold_norms(copied)
    copied.backbone.to(memory_format=torch.channels_last)
    known = isinstance(copied, DETR) and type(copied).predict is DETR.predict  # others may read more of the decoder
    last_layer = known and has_last_layer(copied.decoder, copied.head)
    if last_layer and isinstance(copied.decoder, RoutedDecoder):
        copied.decoder._modules["routes"] = nn.ModuleList()  # of training alone
    Replacements(kernels).apply(copied)
    if last_layer:
        copied.decoder = LastLayerDecoder(copied.decoder, copied.head)
    return copied


class OptimizedDetector(nn.Module):
    """A detector for prediction alone: detectron2's inputs in, detections out.

    `model` is the rewritten detector, whose modules are no interface.
    """

    def __init__(self, model: nn.Module, *, precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.model = model
        self.precision = precision
        super().train(False)

    def forward(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the detections of detectron2's inputs, as the original does in evaluation."""
        with torch.inference_mode(), self._autocast():
            outputs = self.model(batched_inputs)
        return [{key: _ordinary(value) for key, value in output.items()} for output in outputs]

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.precision is torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(next(self.model.parameters()).device.type, dtype=self.precision)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "OptimizedDetector":
        """Raise ConfigError for another device or type, which half of the weights would miss."""
        weight = next(self.parameters())
        asked = fn(weight.detach()[:0])
        if (asked.device, asked.dtype) != (weight.device, weight.dtype):
            raise ConfigError(
                f"An optimized detector cannot become {asked.dtype} on {asked.device}: move the original and optimize "
                "it afterwards."
            )
        super()._apply(fn, recurse)
        return self

    def load_state_dict(self, *args: Any, **options: Any) -> Any:
        """Raise ConfigError: its weights have other names and shapes than a file's, which would be left out."""
        raise ConfigError("An optimized detector takes no weights: load them into the original and optimize it again.")

    def train(self, mode: bool = True) -> "OptimizedDetector":
        """Stay in evaluation mode; raise ConfigError for training mode."""
        if mode:
            raise ConfigError("An optimized detector cannot be trained: train the original and optimize it afterwards.")
        return super().train(False)


def _ordinary(value: Any) -> Any:
    """Return a copy of an output whose tensors may be changed in place, unlike those of inference mode."""
    if isinstance(value, Instances):
        return Instances(value.image_size, **{name: _ordinary(field) for name, field in value.get_fields().items()})
    if isinstance(value, tuple):  # a panoptic segmentation: the map of segments, and what they are
        return tuple(map(_ordinary, value))
    return value.clone() if isinstance(value, Tensor | Boxes) else value
