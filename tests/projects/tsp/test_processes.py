"""TSP's detectors and their baseline in two processes, of which one has no object: what DistributedDataParallel needs
of every parameter. Both processes train all of them, since their start takes most of the time.
"""

import json
import os
import subprocess
import sys

import pytest
from paths import PROJECT
from tsp_rcnn_tiny import LOSSES

# Prints for each detector the names of its losses and the norm of all gradients after their exchange.
SCRIPT = """
import json
import sys
import torch
from detectron2.utils.events import EventStorage
from parts import image_input
from torch.nn.parallel import DistributedDataParallel
from tsp_fcos_parts import tiny_tsp_fcos
from tsp_rcnn_tiny import build, tiny, tiny_faster_rcnn
from align_detr.projects.tsp.fcos_losses import mean_over_ranks

rank, store = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2)
detectors = {
    "TSP-FCOS": tiny_tsp_fcos(),
    "TSP-RCNN": build(tiny(norm="naiveSyncBN")),
    "Align-TSP-RCNN": build(tiny("align_tsp_rcnn_r50_36ep", norm="naiveSyncBN")),
    "Faster R-CNN": tiny_faster_rcnn(),
}
found = {"mean": mean_over_ranks(torch.tensor([1.0 + rank, 4.0])).tolist()}
for name, detector in detectors.items():
    torch.manual_seed(rank)
    model = DistributedDataParallel(detector.train(), broadcast_buffers=False)
    for counts in ((3, 0), (0, 0), (2, 1)):  # a parameter without a gradient stops the step after it
        model.zero_grad()
        with EventStorage():
            losses = model([image_input(96, 70, counts[rank]), image_input(64, 96, 0)])
        sum(losses.values()).backward()
        gradients = [p.grad for p in model.parameters() if p.requires_grad]
        assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    norm = torch.cat([g.flatten() for g in gradients]).double().norm()
    found[name] = [sorted(losses), format(float(norm), ".6e")]
print(json.dumps(found))
torch.distributed.barrier()  # neither leaves while the other still listens
torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each of the two processes found."""
    store = tmp_path_factory.mktemp("processes") / "store"
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(rank), str(store)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT / "tests"), str(PROJECT)])},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    results = [run.communicate(timeout=180) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], results
    return [json.loads(output.splitlines()[-1]) for output, _ in results]


@pytest.mark.parametrize(
    "name, losses",
    [
        ("TSP-FCOS", {"loss_class", "loss_giou", "loss_centerness", "loss_class_dense"}),
        ("TSP-RCNN", LOSSES),
        ("Align-TSP-RCNN", LOSSES),
        ("Faster R-CNN", {"loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc"}),
    ],
)
def test_a_process_without_objects(printed: list[dict], name: str, losses: set[str]) -> None:
    first, second = (x[name] for x in printed)
    assert first == second, "equal names of losses, equal gradients"
    assert set(first[0]) == losses and float(first[1]) > 0


def test_the_mean_of_two_processes(printed: list[dict]) -> None:
    assert [x["mean"] for x in printed] == [[1.5, 4.0]] * 2
