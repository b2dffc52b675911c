"""The form that torchvision's Swin Transformers and ConvNeXts share: a stem, then four stages of strides 4 to 32."""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn

OUTPUTS = ("res2", "res3", "res4", "res5")
_ENDS = (0, 1, 2, 4, 6, 8)  # modules of `features` in the stem alone and up to res2, ..., after none
BLOCKS = {name: end - 1 for name, end in zip(OUTPUTS, _ENDS[2:], strict=True)}  # index of a stage's in `features`


class FourStages(Backbone):
    """Base of the backbones that are torchvision's `features`: stem, stage, and three times a reduction and a stage.

    Each output has a norm of its own, as the detectors of both papers have. What comes after the last output is left
    out. `norm` builds the norm of so many channels, `divisor` is what image sizes are padded to multiples of, with
    zeros at the right and the bottom. Raise ValueError for an unknown output or number of stages.
    """

    def __init__(
        self,
        features: nn.Sequential,
        *,
        channels: Sequence[int],
        out_features: Sequence[str],
        freeze_at: int,
        norm: Callable[[int], nn.Module],
        divisor: int,
    ) -> None:
        super().__init__()
        kind = type(self).__name__
        unknown = [name for name in out_features if name not in OUTPUTS]
        if unknown:
            raise ValueError(f"{kind} has no output '{unknown[0]}': choose from {', '.join(OUTPUTS)}.")
        if not 0 <= freeze_at < len(_ENDS):
            raise ValueError(f"freeze_at is {freeze_at}, but {kind} has stages 1 to {len(_ENDS) - 1}: 0 freezes none.")
        self._out_features = list(out_features)
        self._channels = dict(zip(OUTPUTS, channels, strict=True))
        self._divisor = divisor
        self.features = features[: max(BLOCKS[name] for name in out_features) + 1]
        self.norms = nn.ModuleDict({name: norm(self._channels[name]) for name in out_features})
        self.features[: _ENDS[freeze_at]].requires_grad_(False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map images (B, 3, h, w) to outputs (B, channels, h / stride, w / stride) by name, sizes rounded up."""
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, self._divisor)
        wanted = {BLOCKS[name]: name for name in self._out_features}
        outputs = {}
        for i, module in enumerate(self.features):
            x = module(x)
            if i in wanted:
                outputs[wanted[i]] = self.as_map(self.norms[wanted[i]](x))
        return cropped(outputs, self.output_shape(), height, width)

    def as_map(self, x: Tensor) -> Tensor:
        """Return what a stage gives, after its norm, as (B, C, h, w)."""
        return x

    @property
    def stages(self) -> dict[str, list[str]]:
        """The modules of the stages stem and res2 to res5, by which `train.freeze` may name them."""
        ends = [min(end, len(self.features)) for end in _ENDS]
        stages = zip(("stem", *OUTPUTS), ends, ends[1:], strict=False)
        return {name: [f"features.{i}" for i in range(first, end)] for name, first, end in stages if first < end}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return channels and stride of every output."""
        strides = {name: 4 * 2**i for i, name in enumerate(OUTPUTS)}
        return {name: ShapeSpec(channels=self._channels[name], stride=strides[name]) for name in self._out_features}


def ceil_divide(n: int, divisor: int) -> int:
    """Return n / divisor, rounded up, so that it holds in a graph, too.

    ONNX's translation of `//` cuts towards zero, so that -(-n // divisor) is wrong there without a word.
    """
    return (n + divisor - 1) // divisor


def pad_to_multiple(x: Tensor, divisor: int) -> Tensor:
    """Pad (B, C, h, w) with zeros at the right and the bottom to multiples of `divisor`."""
    height, width = x.shape[-2:]
    bottom, right = (ceil_divide(n, divisor) * divisor - n for n in (height, width))
    if isinstance(bottom, int) and isinstance(right, int) and not (bottom or right):
        return x  # a graph with free sizes pads always: it would keep the answer for its example
    return F.pad(x, (0, right, 0, bottom))


def cropped(maps: dict[str, Tensor], shapes: dict[str, ShapeSpec], height: int, width: int) -> dict[str, Tensor]:
    """Return the part of each map that an image of `height` and `width` covers, sizes rounded up."""
    sizes = {
        name: (ceil_divide(height, shape.stride), ceil_divide(width, shape.stride)) for name, shape in shapes.items()
    }
    return {name: maps[name][..., :h, :w] for name, (h, w) in sizes.items()}
