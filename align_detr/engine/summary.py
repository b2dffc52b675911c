"""Log lines on a run before it starts."""

import sys
from collections.abc import Mapping

import detectron2
import torch
from detectron2.utils import comm
from torch import nn

from align_detr.engine.run_length import DataSize, RunLength


def describe_environment() -> str:
    """Return Python, PyTorch, CUDA and detectron2 versions in one line."""
    cuda = f"CUDA {torch.version.cuda}" if torch.cuda.is_available() else "no CUDA device"
    python = ".".join(map(str, sys.version_info[:3]))
    return f"Python {python}, PyTorch {torch.__version__} ({cuda}), detectron2 {detectron2.__version__}"


def describe_model(model: nn.Module) -> str:
    """Return the model's name and its total and trainable parameters, in millions."""
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return f"Model: {type(model).__name__}, {total / 1e6:.3f} M parameters, {trainable / 1e6:.3f} M trainable"


def describe_run(*, length: RunLength, test_data: DataSize, rates: Mapping[str, float], scaling: str) -> list[str]:
    """Return lines on data, batch, length and learning rates, with the rule of their `scaling`."""
    world_size = comm.get_world_size()
    size = f"{length.data.images} images" if length.data.names else "size unknown"
    lines = [f"Training data: {', '.join(length.data.names) or 'not named in the config'} ({size})"]
    if test_data.names:
        lines.append(f"Test data: {', '.join(test_data.names)} ({test_data.images} images)")
    share = length.total_batch // world_size
    parts = f", in {length.accumulate} parts of {share // length.accumulate}" if length.accumulate > 1 else ""
    lines += [
        f"Batch: {length.total_batch} images in all, {share} on each process ({world_size}){parts}",
        f"Length: {length.epochs:g} epochs x {length.iterations_per_epoch} iterations = {length.max_iter} iterations",
        f"Learning rates: {', '.join(f'{name} {rate:g}' for name, rate in rates.items())} ({scaling})",
    ]
    return lines
