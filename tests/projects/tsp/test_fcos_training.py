"""TSP-FCOS in this library's trainer: its optimizer, its schedule, interruption."""

import io
from itertools import cycle

import torch
from detectron2.engine import HookBase
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler

from align_detr.engine.hooks import GroupLRScheduler
from align_detr.engine.precision import Precision
from align_detr.engine.trainer import Trainer
from align_detr.projects.tsp.hybrid_optimizer import HybridOptimizer, get_hybrid_groups
from support.detectors import tiny_tsp_fcos
from support.inputs import image_input


class NoteLosses(HookBase):
    """A hook that records the total loss and the rates of each step."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.rates: list[tuple[float, float]] = []

    def before_step(self) -> None:
        optimizer = self.trainer.optimizer
        self.rates.append((optimizer.sgd.param_groups[0]["lr"], optimizer.adamw.param_groups[0]["lr"]))

    def after_step(self) -> None:
        self.losses.append(self.trainer.storage.latest()["total_loss"][0])


class SaveAfter(HookBase):
    """A hook that saves model and trainer after one iteration, as the checkpointer does."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration
        self.file = io.BytesIO()

    def after_step(self) -> None:
        if self.trainer.iter == self.iteration:
            torch.save({"trainer": self.trainer.state_dict(), "model": self.trainer.model.state_dict()}, self.file)


def build(batch: list[dict]) -> tuple[Trainer, NoteLosses]:
    model = tiny_tsp_fcos(keep=(1.0, 1.0)).train()
    groups = get_hybrid_groups(model=model, lr=0.01, transformer_lr=1e-3)
    trainer = Trainer(
        model=model,
        data_loader=cycle([batch]),
        optimizer=HybridOptimizer(params=groups),
        precision=Precision(),
        clip_max_norm=0.0,
    )
    multiplier = WarmupParamScheduler(
        MultiStepParamScheduler([1.0, 0.1, 0.01], milestones=[6, 8], num_updates=10), 0.001, 0.2, "linear"
    )
    notes = NoteLosses()
    trainer.register_hooks([GroupLRScheduler(scheduler=multiplier), notes])
    return trainer, notes


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened() -> None:
    torch.manual_seed(0)
    batch = [image_input(64, 64, 3), image_input(48, 64, 0)]
    whole, whole_notes = build(batch)
    checkpoint = SaveAfter(3)
    whole.register_hooks([checkpoint])
    whole.train(0, 10)
    checkpoint.file.seek(0)
    state = torch.load(checkpoint.file, weights_only=True)
    second, second_notes = build(batch)
    second.model.load_state_dict(state["model"])
    second.load_state_dict(state["trainer"])
    second.train(state["trainer"]["iteration"] + 1, 10)
    torch.testing.assert_close(torch.tensor(second_notes.losses), torch.tensor(whole_notes.losses[4:]))
    # Not all of them: the bias of attention's keys has no gradient but rounding, which Adam makes steps of.
    for name in ("head.class_embed.weight", "points.class_embed.weight", "encoder.layers.0.ffn.linear1.weight"):
        torch.testing.assert_close(
            whole.model.get_parameter(name), second.model.get_parameter(name), rtol=1e-5, atol=1e-6
        )
    sgd, adamw = zip(*whole_notes.rates, strict=True)
    expected = [0.001, 0.5005, 1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]
    torch.testing.assert_close(torch.tensor(sgd), 0.01 * torch.tensor(expected))
    torch.testing.assert_close(torch.tensor(adamw), 1e-3 * torch.tensor(expected))
