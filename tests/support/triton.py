"""Runs the Triton kernels of deformable attention on the CPU, in a process of its own: Triton reads TRITON_INTERPRET
when it is imported.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from support.paths import PROJECT


def interpret(folder: Path, cases: list[dict]) -> list[tuple[Tensor, ...]]:
    """For each case (value, shapes, locations, weights, grad, deterministic): output and the three gradients."""
    pytest.importorskip("triton")
    torch.save(cases, folder / "cases.pt")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join([str(PROJECT), *sys.path])}
    command = [sys.executable, "-m", __name__, str(folder)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return torch.load(folder / "results.pt", weights_only=True)


def main(folder: Path) -> None:
    """Computes the cases of `folder`."""
    from align_detr.layers import deformable_attention_triton as kernels

    torch.set_num_threads(1)
    assert kernels.can_launch(torch.device("cpu"))
    results = []
    for case in torch.load(folder / "cases.pt", weights_only=True):
        torch.use_deterministic_algorithms(case["deterministic"])
        inputs = (case["value"], case["shapes"], case["locations"], case["weights"])
        results.append((kernels.sample(*inputs), *kernels.sample_backward(case["grad"], *inputs)))
    torch.save(results, folder / "results.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
