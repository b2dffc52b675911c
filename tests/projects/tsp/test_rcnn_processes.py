"""TSP-RCNN in two processes, of which one has no object: what DistributedDataParallel needs of every parameter."""

import os
import subprocess
import sys
from pathlib import Path

from paths import PROJECT

# Both print the names of their losses and a gradient after its exchange.
SCRIPT = """
import sys
import torch
from detectron2.utils.events import EventStorage
from parts import image_input
from tsp_rcnn_tiny import build, tiny

rank, store = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2)
model = torch.nn.parallel.DistributedDataParallel(build(tiny(norm="naiveSyncBN")).train(), broadcast_buffers=False)
torch.manual_seed(rank)
for counts in ((3, 0), (0, 0), (2, 1)):  # a parameter without a gradient stops the step after it
    with EventStorage():
        losses = model([image_input(96, 96, counts[rank]), image_input(64, 96, 0)])
    sum(losses.values()).backward()
assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)
weight = model.module.roi_heads.stages[0].transformer.projection.weight.grad
print(sorted(losses), format(float(weight.norm()), ".6e"))
torch.distributed.destroy_process_group()
"""


def test_a_process_without_objects(tmp_path: Path) -> None:
    folders = [PROJECT / "tests", PROJECT]
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(rank), str(tmp_path / "store")],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    results = [run.communicate(timeout=180) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], results
    assert results[0][0] == results[1][0] != "", "equal names of losses, equal gradients"
