"""Maps of one value: gradients and norms that PyTorch leaves undefined there."""

import pytest
import torch
from torch import nn

from align_detr.layers.small_maps import StridedConv2d, normalize_one_value


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (1, 3), (4, 4)])
def test_a_strided_convolution_has_its_gradient_under_autocast(size: tuple[int, int]) -> None:
    """Columns of the kernel that meet padding alone have none; the others have the sum of the pixels they meet."""
    for seed in range(10):  # what stands in memory that nobody writes is chance
        torch.manual_seed(seed)
        conv = StridedConv2d(64, 64, kernel_size=3, stride=2, padding=1)
        plain = nn.Conv2d(64, 64, kernel_size=3, stride=2, padding=1)
        plain.load_state_dict(conv.state_dict())
        x = torch.randn(2, 64, *size).bfloat16().float()
        with torch.autocast("cpu", torch.bfloat16):
            conv(x).float().sum().backward()
        plain(x).sum().backward()
        assert conv.weight.grad is not None and plain.weight.grad is not None
        torch.testing.assert_close(conv.weight.grad, plain.weight.grad, rtol=0.02, atol=0.02)


def test_one_value_is_normalised_as_in_evaluation() -> None:
    norm = nn.BatchNorm2d(2)
    norm.running_mean.copy_(torch.tensor([1.0, 3.0]))
    x = torch.tensor([2.0, 3.0]).view(1, 2, 1, 1)
    y = normalize_one_value(norm, x)
    torch.testing.assert_close(y.flatten(), torch.tensor([1.0, 0.0]), rtol=0, atol=1e-4)
    assert norm.training and norm.running_mean.tolist() == [1.0, 3.0]
    normalize_one_value(norm, x.expand(2, 2, 1, 1))
    assert norm.running_mean.tolist() == pytest.approx([1.1, 3.0])
