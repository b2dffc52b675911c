"""Gradient accumulation: a step in parts has the gradient of the whole batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from detectron2.config import instantiate
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from align_detr.engine.accumulation import check_accumulate, split_batch
from align_detr.engine.precision import Precision
from align_detr.engine.trainer import Trainer
from align_detr.errors import ConfigError
from align_detr.structures import StepPart
from support.detectors import SIZES, deformable_detector, single_scale_detector
from support.inputs import image_input
from support.processes import in_two_processes
from support.shrink import small_model

COUNTS = (3, 0, 7, 1, 2, 2, 15, 1)  # objects of eight images: more than there are queries, and none


def softmax_detr() -> nn.Module:
    torch.manual_seed(0)
    return instantiate(small_model("detr/detr_r50_500ep.py", **SIZES))


MODELS = {
    "softmax": softmax_detr,
    "focal": lambda: single_scale_detector("dab"),
    "aligned": lambda: single_scale_detector("aligned"),
    "two_stage": lambda: deformable_detector("two_stage"),
    "hybrid": lambda: deformable_detector("hybrid"),
}


def batch_of(counts: tuple[int, ...]) -> list[dict[str, Any]]:
    torch.manual_seed(1)
    return [image_input(64, 64, n) for n in counts]


def step(model: nn.Module, batch: list[dict[str, Any]], accumulate: int) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Run one step of the trainer; return its losses and gradients."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    trainer = Trainer(
        model=model,
        data_loader=[batch],
        optimizer=torch.optim.SGD(parameters, lr=0.0),
        precision=Precision(),
        clip_max_norm=0.0,
        accumulate=accumulate,
    )
    with EventStorage() as trainer.storage:
        trainer.run_step()
        losses = {name: history.latest() for name, history in trainer.storage.histories().items() if "loss" in name}
    return losses, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", MODELS)
def test_four_parts_of_two_have_the_gradient_of_eight(kind: str) -> None:
    """To 1e-5 of the whole gradient's norm; and the losses are those of the batch."""
    model = MODELS[kind]()
    losses, whole = step(model, batch_of(COUNTS), 1)
    losses_of_parts, parts = step(model, batch_of(COUNTS), 4)
    norm = torch.stack([g.norm() for g in whole.values()]).norm()
    difference = torch.stack([(whole[name] - parts[name]).norm() for name in whole]).norm()
    assert whole.keys() == parts.keys() and norm > 0.1 and difference < 1e-5 * norm
    assert losses_of_parts == pytest.approx(losses, rel=1e-5, abs=1e-6)


def test_a_step_without_objects() -> None:
    """The normaliser of the step is 1, as that of the large batch; in each of four parts it is a quarter."""
    model = MODELS["focal"]()
    losses, whole = step(model, batch_of((0, 0, 0, 0)), 1)
    losses_of_parts, parts = step(model, batch_of((0, 0, 0, 0)), 4)
    assert losses_of_parts == pytest.approx(losses, rel=1e-5, abs=1e-6)
    assert all(torch.allclose(whole[name], parts[name], rtol=1e-4, atol=1e-6) for name in whole)


def gradient_norm_of_two_processes(rank: int) -> tuple[float, int]:
    """The norm of the gradient after a step of two parts, and how often buckets were exchanged in it."""
    model = DistributedDataParallel(MODELS["focal"]().train())
    exchanges = []

    def count_and_average(state: Any, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        exchanges.append(bucket.index())
        average = dist.all_reduce(bucket.buffer().div_(2), async_op=True).get_future()
        return average.then(lambda done: done.value()[0])

    model.register_comm_hook(None, count_and_average)
    _, gradient = step(model, batch_of(COUNTS)[rank::2], 2)
    return float(torch.stack([g.double().norm() for g in gradient.values()]).norm()), len(exchanges)


def test_two_processes_of_two_parts_exchange_once(tmp_path: Path) -> None:
    """All parts but the last go without an exchange; the gradient is that of one process with all images."""
    _, whole = step(MODELS["focal"](), batch_of(COUNTS), 1)
    expected = float(torch.stack([g.double().norm() for g in whole.values()]).norm())
    for norm, exchanges in in_two_processes(gradient_norm_of_two_processes, tmp_path):
        assert norm == pytest.approx(expected, rel=1e-5) and exchanges == 1


def test_parts_know_the_objects_of_the_others() -> None:
    """What is no record is split alone; a batch of fewer images than parts has as many parts as images."""
    first, second = split_batch(batch_of((3, 0, 7)), 2)
    assert [x["step_part"] for x in first] == [StepPart(2, (7,))] * 2 and second[0]["step_part"] == StepPart(2, (3, 0))
    assert "step_part" not in split_batch(batch_of((3,)), 4)[0][0]
    assert split_batch([1, 2, 3, 4], 2) == [[1, 2], [3, 4]] and split_batch([], 2) == [[]]
    assert StepPart(2, (7,)).mean(3) == 5.0


@pytest.mark.parametrize("accumulate", [0, 3, 2.0, None])
def test_a_wrong_number_of_parts(accumulate: Any) -> None:
    with pytest.raises(ConfigError, match="train.accumulate="):
        check_accumulate(accumulate, 8)
