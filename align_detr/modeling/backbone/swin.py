"""Swin Transformers as detectron2 backbones, out of torchvision's blocks."""

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.swin_transformer import ShiftedWindowAttention
from torchvision.models.swin_transformer import SwinTransformer as TorchvisionSwin

from align_detr.modeling.backbone.four_stages import FourStages

_DEPTHS, _HEADS = (2, 2, 6, 2), (3, 6, 12, 24)


class SwinTransformer(FourStages):
    """Swin Transformer (Liu et al. 2021) for images of any size, by default Swin-T.

    Outputs res2 to res5 have strides 4 to 32 and 1, 2, 4 and 8 times `embed_dim` channels, each with a layer norm of
    its own. Images are padded to multiples of 4 and maps to multiples of `window_size` before they are shifted, as in
    the authors' detectors; in windows that reach beyond the image, the padding takes part in the attention. `drop_path`
    is the share of residual branches left out at the last block in training, growing linearly from 0. The first
    `freeze_at` stages do not train: 1 is the patch embedding, 2 ends with res2, 5 with res5. The authors' weights and
    torchvision's load. Raise ValueError for an unknown output or number of stages.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 96,
        depths: Sequence[int] = _DEPTHS,
        num_heads: Sequence[int] = _HEADS,
        window_size: int = 7,
        drop_path: float = 0.2,
        out_features: Sequence[str] = ("res3", "res4", "res5"),
        freeze_at: int = 0,
    ) -> None:
        model = TorchvisionSwin(
            patch_size=[4, 4],
            embed_dim=embed_dim,
            depths=list(depths),
            num_heads=list(num_heads),
            window_size=[window_size, window_size],
            stochastic_depth_prob=drop_path,
            num_classes=1,  # the classifier is left out
        )
        super().__init__(
            model.features,
            channels=[embed_dim * 2**i for i in range(4)],
            out_features=out_features,
            freeze_at=freeze_at,
            norm=nn.LayerNorm,
            divisor=4,
        )
        for module in self.modules():
            if isinstance(module, ShiftedWindowAttention):  # a table that follows from the window's size: not a weight
                index = module.relative_position_index
                del module.relative_position_index
                module.register_buffer("relative_position_index", index, persistent=False)

    def as_map(self, x: Tensor) -> Tensor:
        """Return (B, h, w, C) as (B, C, h, w)."""
        return x.permute(0, 3, 1, 2).contiguous()
