"""Parts of detectors as ONNX files of free height and width: they hold in sizes of which the exporter has seen none."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.testing import assert_close
from torchvision.models.swin_transformer import ShiftedWindowAttention

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
    path: Path = tmp_path_factory.mktemp("windows") / "windows.onnx"
    free = {"x": {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}}
    program = torch.export.export(plain, (torch.rand(2, 8, 18, 33),), dynamic_shapes=free, strict=False)
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
