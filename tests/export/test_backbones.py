"""Parts of backbones as ONNX files, of free height and width: they hold in sizes that the exporter has not seen."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.testing import assert_close
from torchvision.models.swin_transformer import ShiftedWindowAttention

from align_detr.export.attention import use_unfused_attention
from align_detr.export.tracing import EXAMPLE, SECOND
from align_detr.export.windows import PlainWindowAttention, use_plain_windows
from align_detr.modeling.backbone.four_stages import pad_to_multiple

pytest.importorskip("onnx", reason="the extra [export] is optional")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra [export] is optional")
pytest.importorskip("onnxscript", reason="the extra [export] is optional")


class Padded(nn.Module):
    """A map that is padded to multiples of 4, and seen in windows that are shifted."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        """Attend: (B, C, h, w) -> (B, h, w, C), sizes rounded up to multiples of 4."""
        return self.attention(pad_to_multiple(x, 4).permute(0, 2, 3, 1))


@pytest.fixture(scope="module")
def attention() -> nn.Module:
    """torchvision's attention in windows of 7, shifted by 3."""
    torch.manual_seed(0)
    module = ShiftedWindowAttention(dim=8, window_size=[7, 7], shift_size=[3, 3], num_heads=2).eval()
    return module.requires_grad_(False)


@pytest.fixture(scope="module")
def session(attention: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> "onnxruntime.InferenceSession":
    """The file of a batch of two 18x33 maps."""
    plain = Padded(ShiftedWindowAttention(dim=8, window_size=[7, 7], shift_size=[3, 3], num_heads=2).eval())
    plain.attention.load_state_dict(attention.state_dict())
    use_plain_windows(plain)
    assert isinstance(plain.attention, PlainWindowAttention)
    free = {"x": {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}}
    return written(plain, torch.rand(2, 8, 18, 33), tmp_path_factory.mktemp("windows") / "windows.onnx", free)


def written(module: nn.Module, x: Tensor, path: Path, free: Any = None) -> "onnxruntime.InferenceSession":
    """The file of a module, written as those of detectors are."""
    program = torch.export.export(module, (x,), dynamic_shapes=free, strict=False)
    torch.onnx.export(program, dynamo=True, opset_version=20, optimize=False, verbose=False).save(str(path))
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("size", [(18, 33), (13, 21), (4, 30), (27, 5), (6, 7)])
def test_shifted_windows(size: tuple[int, int], attention: nn.Module, session: "onnxruntime.InferenceSession") -> None:
    """Of several windows, of one window along a side or along both, and where padding fills windows up."""
    x = torch.rand(2, 8, *size, generator=torch.Generator().manual_seed(1))
    height, width = (-size[0] % 4, -size[1] % 4)
    expected = attention(nn.functional.pad(x, (0, width, 0, height)).permute(0, 2, 3, 1))
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=0)


def test_examples_have_one_window_and_several() -> None:
    """Of Swin-L's 12 tokens, at stride 32; of a single window PyTorch asks whether it is one, and keeps the answer."""
    assert all(-(-side // 32) > 12 for side in EXAMPLE)
    assert all(-(-side // 32) <= 12 for side in SECOND)


def test_attention_of_timms_plain_backbone(tmp_path: Path) -> None:
    """Its fused attention has no batch of heads, which PyTorch's translation to ONNX asks for."""
    sam = pytest.importorskip("timm.models.vision_transformer_sam", reason="the extra [timm] is optional")
    attention = sam.Attention(16, num_heads=2, use_rel_pos=True, input_size=(4, 6)).eval().requires_grad_(False)
    nn.init.normal_(attention.rel_pos_h)
    x = torch.rand(2, 4, 6, 16)
    expected = attention(x)
    use_unfused_attention(attention)
    session = written(attention, x, tmp_path / "attention.onnx")
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=0)
