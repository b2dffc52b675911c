"""Convolutions and linear layers with what follows them in one kernel: bias, sum with a residual, ReLU.

On a CPU that oneDNN supports, the weight is kept in the blocked layout of oneDNN's kernels, which PyTorch otherwise
makes anew in each call. Elsewhere the same modules run PyTorch's ordinary functions.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

OPERATORS = ("_convolution_pointwise", "_convolution_pointwise_", "_linear_pointwise", "_reorder_linear_weight")


class FusedConv2d(nn.Module):
    """A convolution with its bias and, with `relu`, a ReLU; channels last where the input is."""

    def __init__(self, conv: nn.Conv2d, *, relu: bool = False) -> None:
        super().__init__()
        self.relu = relu
        self.options: tuple[Any, ...] = (conv.stride, conv.padding, conv.dilation, conv.groups)
        self.weight = nn.Parameter(conv.weight.detach().contiguous(memory_format=torch.channels_last), False)
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach(), False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, h, w)."""
        x = F.conv2d(x, self.weight, self.bias, *self.options)
        return x.relu_() if self.relu else x

    def add_relu(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return the ReLU of `residual` + the convolution of x; it may be written into `residual`."""
        return F.conv2d(x, self.weight, self.bias, *self.options).add_(residual).relu_()


class OneDNNConv2d(nn.Module):
    """`FusedConv2d` of oneDNN on a CPU, in the type of the weight.

    The layout of a packed weight must suit maps of any size. Those of larger kernels do; those of 1x1 kernels do not,
    so these are linear layers (`PointwiseConv2d`).
    """

    def __init__(self, conv: nn.Conv2d, *, relu: bool = False) -> None:
        super().__init__()
        self.relu = "relu" if relu else "none"
        self.dtype = conv.weight.dtype
        stride, padding, dilation = (list(x) for x in (conv.stride, conv.padding, conv.dilation))
        self.options: tuple[Any, ...] = (padding, stride, dilation, conv.groups)
        plain = conv.weight.detach().contiguous().to_mkldnn()
        self.weight = torch._C._nn.mkldnn_reorder_conv2d_weight(plain, *self.options)
        self.bias = None if conv.bias is None else conv.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, h, w)."""
        return torch.ops.mkldnn._convolution_pointwise(
            x.to(self.dtype), self.weight, self.bias, *self.options, self.relu, [], ""
        )

    def add_relu(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return the ReLU of `residual` + the convolution of x, written into `residual`."""
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            residual, x, self.weight, self.bias, *self.options, "add", 1.0, "relu", [], ""
        )


class PointwiseConv2d(nn.Module):
    """A 1x1 `OneDNNConv2d`: a linear layer of the channels of maps that are channels last."""

    def __init__(self, conv: nn.Conv2d, *, relu: bool = False) -> None:
        super().__init__()
        self.linear = OneDNNLinear(linear_of(conv.weight.flatten(1), conv.bias), relu=relu)
        self.rows, self.columns = (slice(None, None, step) for step in conv.stride)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, h, w)."""
        return self.linear(self._pixels(x)).permute(0, 3, 1, 2)

    def add_relu(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return the ReLU of `residual` + the convolution of x."""
        pixels = residual.permute(0, 2, 3, 1)
        return self.linear.add(self._pixels(x), pixels).relu_().permute(0, 3, 1, 2)

    def _pixels(self, x: Tensor) -> Tensor:
        """Return the pixels that the stride meets, (B, h, w, C)."""
        return x[:, :, self.rows, self.columns].permute(0, 2, 3, 1).contiguous()


class FusedLinear(nn.Module):
    """A linear layer, with `relu` followed by a ReLU."""

    def __init__(self, linear: nn.Linear, *, relu: bool = False) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.relu = relu
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """Transform (..., C)."""
        x = F.linear(x, self.weight, self.bias)
        return x.relu_() if self.relu else x


class OneDNNLinear(nn.Module):
    """`FusedLinear` of oneDNN on a CPU, in the type of the weight."""

    def __init__(self, linear: nn.Linear, *, relu: bool = False) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.relu = "relu" if relu else "none"
        self.dtype = linear.weight.dtype
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().contiguous(), None)
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """Transform (..., C)."""
        return torch.ops.mkldnn._linear_pointwise(x.to(self.dtype), self.weight, self.bias, self.relu, [], "")

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return `residual`, of the output's shape and type, + the transformed (..., C)."""
        return torch.ops.mkldnn._linear_pointwise.binary(x.to(self.dtype), residual, self.weight, self.bias, "add")


def linear_of(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Return a linear layer of a weight (out, in) and a bias (out,)."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.detach(), False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach(), False)
    return linear


Convolution = FusedConv2d | OneDNNConv2d | PointwiseConv2d
Linear = FusedLinear | OneDNNLinear


class Kernels:
    """The convolutions and linear layers for models of one device and type, float32 or bfloat16."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.packed = device.type == "cpu" and has_onednn()

    def convolution(self, conv: nn.Conv2d, *, relu: bool = False) -> Convolution:
        """Return a convolution, with ReLU if `relu`, in this type."""
        conv = conv.to(self.dtype)
        if not self.packed:
            return FusedConv2d(conv, relu=relu)
        pointwise = conv.kernel_size == (1, 1) and conv.padding == (0, 0) and conv.groups == 1
        return PointwiseConv2d(conv, relu=relu) if pointwise else OneDNNConv2d(conv, relu=relu)

    def linear(self, linear: nn.Linear, *, relu: bool = False) -> Linear:
        """Return a linear layer, with ReLU if `relu`, in this type."""
        linear = linear.to(self.dtype)
        return OneDNNLinear(linear, relu=relu) if self.packed else FusedLinear(linear, relu=relu)


def has_onednn() -> bool:
    """Say whether this PyTorch has oneDNN with the operators that `torch.compile` uses, too."""
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in OPERATORS)


def has_bfloat16(device: torch.device) -> bool:
    """Say whether a device computes matrix products in bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type != "cpu" or (has_onednn() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def is_plain(conv: nn.Conv2d) -> bool:
    """Say whether a convolution is nothing but weight, bias, stride, zero padding, dilation and groups."""
    if getattr(conv, "norm", None) is not None or getattr(conv, "activation", None) is not None:
        return False
    return conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
