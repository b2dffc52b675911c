"""TSP-FCOS in two processes, of which one has no object: what DistributedDataParallel needs of every parameter."""

import os
import subprocess
import sys
from pathlib import Path

from paths import PROJECT

# Both print the names of their losses, a gradient after its exchange, and a mean over both.
SCRIPT = """
import sys
import torch
from parts import image_input
from tsp_fcos_parts import tiny_tsp_fcos
from align_detr.projects.tsp.fcos_losses import mean_over_ranks

rank, store = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2)
model = torch.nn.parallel.DistributedDataParallel(tiny_tsp_fcos().train())
torch.manual_seed(rank)
for counts in ((3, 0), (0, 0), (2, 1)):  # a parameter without a gradient stops the step after it
    model.zero_grad()
    losses = model([image_input(96, 70, counts[rank]), image_input(64, 96, 0)])
    sum(losses.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)
weight = model.module.head.class_embed.weight.grad
print(sorted(losses), format(float(weight.norm()), ".6e"), mean_over_ranks(torch.tensor([1.0 + rank, 4.0])).tolist())
torch.distributed.destroy_process_group()
"""


def test_a_process_without_objects(tmp_path: Path) -> None:
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(rank), str(tmp_path / "store")],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT / "tests"), str(PROJECT)])},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    results = [run.communicate(timeout=180) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], results
    assert results[0][0] == results[1][0] != "", "equal names of losses, equal gradients"
    assert results[0][0].rstrip().endswith("[1.5, 4.0]")
