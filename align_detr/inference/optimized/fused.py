"""Convolutions and linear layers with what follows them in one kernel: bias, sum with a residual, ReLU.

On a CPU that oneDNN supports, the weight is kept in the blocked layout of oneDNN's kernels, which PyTorch otherwise
makes anew in each call. Elsewhere the same modules run PyTorch's ordinary functions.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from align_detr.errors import EnvironmentProblem

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


class Packed(nn.Module):
    """A layer with one weight in a layout of oneDNN, which is copied and pickled in PyTorch's."""

    weight: Tensor

    def pack(self, weight: Tensor) -> Tensor:
        """Return a weight in the layout of oneDNN."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "weight": self.weight.to_dense()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if not has_onednn():
            raise EnvironmentProblem("This PyTorch lacks oneDNN: optimize the original detector here.")
        self.weight = self.pack(self.weight)


class OneDNNConv2d(Packed):
    """`FusedConv2d` of oneDNN on a CPU, in the type of the weight.

    The layout of a packed weight must suit maps of any size. With AVX-512 those of larger kernels do; those of 1x1
    kernels do not, so these are linear layers (`PointwiseConv2d`). Without AVX-512 a layout for one size makes others
    up to ten times as slow, so the weight stays as it is.
    """

    def __init__(self, conv: nn.Conv2d, *, relu: bool = False) -> None:
        super().__init__()
        self.relu = "relu" if relu else "none"
        self.dtype = conv.weight.dtype
        stride, padding, dilation = (list(x) for x in (conv.stride, conv.padding, conv.dilation))
        self.options: tuple[Any, ...] = (padding, stride, dilation, conv.groups)
        self.weight = self.pack(conv.weight.detach())
        self.bias = None if conv.bias is None else conv.bias.detach()

    def pack(self, weight: Tensor) -> Tensor:
        """Return a weight (out, in, h, w) in the layout of oneDNN, or of PyTorch without AVX-512."""
        if torch.backends.cpu.get_cpu_capability() != "AVX512":
            return weight.contiguous(memory_format=torch.channels_last)
        return torch._C._nn.mkldnn_reorder_conv2d_weight(weight.contiguous().to_mkldnn(), *self.options)

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
    """A 1x1 `OneDNNConv2d`: a linear layer of the channels of maps that are channels last.

    The sum with a residual is a convolution, which alone can write into the residual. Its weight stays as it is:
    oneDNN's layout depends on the size of the maps, and copying it in each call takes less than another map does.
    """

    def __init__(self, conv: nn.Conv2d, *, relu: bool = False) -> None:
        super().__init__()
        self.linear = OneDNNLinear(linear_of(conv.weight.flatten(1), conv.bias), relu=relu)
        self.rows, self.columns = (slice(None, None, step) for step in conv.stride)
        self.weight = conv.weight.detach().contiguous(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, h, w)."""
        pixels = x[:, :, self.rows, self.columns].permute(0, 2, 3, 1).contiguous()  # that the stride meets
        return self.linear(pixels).permute(0, 3, 1, 2)

    def add_relu(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return the ReLU of `residual` + the convolution of x, written into `residual`."""
        stride = [self.rows.step, self.columns.step]
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            residual, x, self.weight, self.linear.bias, [0, 0], stride, [1, 1], 1, "add", 1.0, "relu", [], ""
        )


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


class OneDNNLinear(Packed):
    """`FusedLinear` of oneDNN on a CPU, in the type of the weight."""

    def __init__(self, linear: nn.Linear, *, relu: bool = False) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.relu = "relu" if relu else "none"
        self.dtype = linear.weight.dtype
        self.weight = self.pack(linear.weight.detach())
        self.bias = None if linear.bias is None else linear.bias.detach()

    def pack(self, weight: Tensor) -> Tensor:
        """Return a weight (out, in) in the layout of oneDNN."""
        return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)

    def forward(self, x: Tensor) -> Tensor:
        """Transform (..., C)."""
        return torch.ops.mkldnn._linear_pointwise(x.to(self.dtype), self.weight, self.bias, self.relu, [], "")


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
