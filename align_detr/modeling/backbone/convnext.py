"""ConvNeXts as detectron2 backbones, out of torchvision's blocks."""

from collections.abc import Sequence
from functools import partial

from torchvision.models.convnext import CNBlockConfig, LayerNorm2d
from torchvision.models.convnext import ConvNeXt as TorchvisionConvNeXt

from align_detr.modeling.backbone.four_stages import FourStages

_DEPTHS, _CHANNELS = (3, 3, 9, 3), (96, 192, 384, 768)


class ConvNeXt(FourStages):
    """ConvNeXt (Liu et al. 2022) for images of any size, by default ConvNeXt-T.

    Outputs res2 to res5 have strides 4 to 32 and the given `channels`, each with a layer norm of its own. Images are
    padded to multiples of 32; the authors' detectors leave out what remains of a row or column there. `drop_path` is
    the share of residual branches left out at the last block in training, growing linearly from 0, and `layer_scale`
    the factor of these branches at the start. The first `freeze_at` stages do not train: 1 is the stem, 2 ends with
    res2, 5 with res5. The authors' weights and torchvision's load. Raise ValueError for an unknown output or number of
    stages.
    """

    def __init__(
        self,
        *,
        depths: Sequence[int] = _DEPTHS,
        channels: Sequence[int] = _CHANNELS,
        drop_path: float = 0.0,
        layer_scale: float = 1.0,
        out_features: Sequence[str] = ("res3", "res4", "res5"),
        freeze_at: int = 0,
    ) -> None:
        following = [*channels[1:], None]
        blocks = [CNBlockConfig(c, after, n) for c, after, n in zip(channels, following, depths, strict=True)]
        model = TorchvisionConvNeXt(blocks, stochastic_depth_prob=drop_path, layer_scale=layer_scale, num_classes=1)
        super().__init__(
            model.features,
            channels=channels,
            out_features=out_features,
            freeze_at=freeze_at,
            norm=partial(LayerNorm2d, eps=1e-6),
            divisor=32,
        )
