"""Parts of Swin Transformers whose graph holds for maps of any size, in place of torchvision's."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.swin_transformer import PatchMerging, ShiftedWindowAttention

from align_detr.modeling.backbone.four_stages import ceil_divide


class PlainWindowAttention(ShiftedWindowAttention):
    """torchvision's attention of a Swin Transformer for export: the shift is arithmetic on the size of the map.

    Windows are not shifted along a side of one window. The parent asks in Python whether that is so, and a graph
    remembers the answer for its example's size.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Attend in windows: (B, h, w, C) -> (B, h, w, C)."""
        height, width, channels = x.shape[1:]
        window = self.window_size
        # windows along each side
        counts = [ceil_divide(n, side) for n, side in zip((height, width), window, strict=True)]
        rows, columns = (n * side for n, side in zip(counts, window, strict=True))
        x = F.pad(x, (0, 0, 0, columns - width, 0, rows - height))
        bias = self.get_relative_position_bias()  # (1, H, N, N)
        back: list[Tensor] | None = None
        if any(self.shift_size):
            shifts = [torch.sym_min(s, (n - 1) * s) for s, n in zip(self.shift_size, counts, strict=True)]
            ends = [n - s for n, s in zip((rows, columns), shifts, strict=True)]
            places, back = (_rolled((rows, columns), first, x.device) for first in (shifts, ends))
            x = x[:, places[0]][:, :, places[1]]
            bias = bias + self._blocked(counts, shifts, x)[:, None]  # (windows, H, N, N)
        tokens = self._windows(x, counts)  # (B, windows, N, C)
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1)).permute(3, 0, 1, 4, 2, 5)
        product = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1) + bias  # (B, windows, H, N, N)
        out = self.proj((product.softmax(-1) @ value).transpose(2, 3).flatten(3))  # (B, windows, N, C)
        out = out.unflatten(2, window).unflatten(1, counts).transpose(2, 3).reshape(-1, rows, columns, channels)
        if back is not None:
            out = out[:, back[0]][:, :, back[1]]
        return out[:, :height, :width]

    def _windows(self, x: Tensor, counts: list[int]) -> Tensor:
        """Return the tokens of each window: (B, h, w, C) -> (B, windows, N, C)."""
        rows, columns = self.window_size
        split = x.reshape(x.shape[0], counts[0], rows, counts[1], columns, x.shape[3])
        return split.transpose(2, 3).flatten(3, 4).flatten(1, 2)

    def _blocked(self, counts: list[int], shifts: list[int], x: Tensor) -> Tensor:
        """Return -100 for pairs of tokens of a window that the shift brought together, else 0: (windows, N, N)."""
        parts = []
        for side, (window, n, shift) in enumerate(zip(self.window_size, counts, shifts, strict=True)):
            place = torch.arange(n * window, device=x.device)
            of_side = (place >= (n - 1) * window).to(x.dtype) + (place >= n * window - shift).to(x.dtype)
            parts.append(of_side.unsqueeze(1 - side))
        part = self._windows((3 * parts[0] + parts[1])[None, ..., None], counts)[0, ..., 0]  # (windows, N)
        return -100.0 * (part[:, None] != part[..., None]).to(x.dtype)


class PlainPatchMerging(PatchMerging):
    """torchvision's reduction for export: sizes of maps stay simple, as the exporter reasons about each."""

    def forward(self, x: Tensor) -> Tensor:
        """Merge 2x2 tokens: (B, h, w, C) -> (B, h / 2, w / 2, 2 C), sizes rounded up."""
        height, width = x.shape[1:3]
        rows, columns = (height + 1) // 2, (width + 1) // 2
        x = F.pad(x, (0, 0, 0, 2 * columns - width, 0, 2 * rows - height))
        x = x.reshape(x.shape[0], rows, 2, columns, 2, x.shape[3]).permute(0, 1, 3, 4, 2, 5)
        return self.reduction(self.norm(x.flatten(3)))


def _rolled(size: tuple[int, int], first: list[int], device: torch.device) -> list[Tensor]:
    """Return, for each side, the places of its rows or columns from the `first` on, and then those before it."""
    # of two ranges, as ONNX's translation of a remainder takes no divisor that depends on the size
    return [
        torch.cat([torch.arange(k, n, device=device), torch.arange(k, device=device)])
        for n, k in zip(size, first, strict=True)
    ]


def use_plain_windows(model: nn.Module) -> None:
    """Let the Swin Transformers in a model hold for any size; names and weights stay."""
    for module in model.modules():
        if type(module) is ShiftedWindowAttention:
            module.__class__ = PlainWindowAttention
        elif type(module) is PatchMerging:
            module.__class__ = PlainPatchMerging
