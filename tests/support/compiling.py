"""Compilation in the tests: graphs as `torch.compile` captures them, in PyTorch's own kernels."""

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch

BACKEND = os.environ.get("ALIGN_DETR_COMPILER", "aot_eager")  # "inductor" makes kernels, and takes a minute


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function compiled as one graph; skip the test where PyTorch cannot compile."""
    if not hasattr(torch.library, "custom_op"):
        pytest.skip("compiled detectors need the registered operators of PyTorch 2.4")
    torch.compiler.reset()
    return torch.compile(function, backend=BACKEND, fullgraph=True)
