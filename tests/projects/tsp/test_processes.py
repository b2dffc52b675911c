"""TSP's detectors and their baseline in two processes, of which one has no object: what DistributedDataParallel needs
of every parameter. Both processes train all of them, since their start takes most of the time.
"""

from typing import Any

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch.nn.parallel import DistributedDataParallel

from align_detr.layers.reduce import mean_over_ranks
from support.detectors import tiny_tsp_fcos
from support.inputs import image_input
from support.processes import in_two_processes
from support.tsp_rcnn_tiny import LOSSES, build, tiny, tiny_faster_rcnn


def losses_and_gradients(rank: int) -> dict[str, Any]:
    """Return each detector's names of losses and its norm of all gradients after their exchange."""
    detectors = {
        "TSP-FCOS": tiny_tsp_fcos(),
        "TSP-RCNN": build(tiny(norm="naiveSyncBN")),
        "Align-TSP-RCNN": build(tiny("align_tsp_rcnn_r50_36ep", norm="naiveSyncBN")),
        "Faster R-CNN": tiny_faster_rcnn(),
    }
    found: dict[str, Any] = {"mean": mean_over_ranks(torch.tensor([1.0 + rank, 4.0])).tolist()}
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
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return the results of the two processes."""
    return in_two_processes(losses_and_gradients, tmp_path_factory.mktemp("processes"))


@pytest.mark.parametrize(
    "name, losses",
    [
        ("TSP-FCOS", {"loss_class", "loss_giou", "loss_centerness", "loss_class_dense"}),
        ("TSP-RCNN", LOSSES),
        ("Align-TSP-RCNN", LOSSES),
        ("Faster R-CNN", {"loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc"}),
    ],
)
def test_a_process_without_objects(found: list[dict[str, Any]], name: str, losses: set[str]) -> None:
    first, second = (x[name] for x in found)
    assert first == second, "equal names of losses, equal gradients"
    assert set(first[0]) == losses and float(first[1]) > 0


def test_the_mean_of_two_processes(found: list[dict[str, Any]]) -> None:
    assert [x["mean"] for x in found] == [[1.5, 4.0]] * 2
