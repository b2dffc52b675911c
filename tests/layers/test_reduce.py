"""Means over processes in a single process; `tests/projects/tsp/test_processes.py` has them in two."""

import torch

from align_detr.layers.reduce import mean_over_ranks


def test_one_process_keeps_its_values_whatever_their_size() -> None:
    values = torch.tensor([0.25, 3.0], requires_grad=True)
    mean = mean_over_ranks(values)
    assert mean.tolist() == [0.25, 3.0] and not mean.requires_grad
