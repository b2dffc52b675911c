"""The training step: clipping, precision, divergence; and the averaged weights."""

import itertools

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from align_detr.engine.ema import ModelEMA
from align_detr.engine.hooks import EvaluationHook, UpdateEMA
from align_detr.engine.precision import Precision
from align_detr.engine.trainer import Trainer, TrainingDiverged
from align_detr.errors import ConfigError, EnvironmentProblem, NonFinitePrediction


class Regressor(nn.Module):
    """loss_bbox = mean over the batch of <weight, x>, so that the gradient is the mean of x."""

    def __init__(self, size=3):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.linear = nn.Linear(size, size, bias=False)
        self.dtypes = []

    def forward(self, batch):
        x = torch.stack(batch)
        hidden = self.linear(x)
        self.dtypes.append(hidden.dtype)
        return {"loss_bbox": (x @ self.weight).mean(), "loss_class": 0.0 * hidden.float().sum()}


def make_trainer(batch, *, precision=None, clip_max_norm=0.1, lr=1.0):
    model = Regressor()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    trainer = Trainer(
        model=model,
        data_loader=[batch] * 4,
        optimizer=optimizer,
        precision=precision or Precision(),
        clip_max_norm=clip_max_norm,
    )
    trainer.iter = trainer.start_iter = 0
    return trainer


def one_step(trainer):
    with EventStorage() as trainer.storage:
        trainer.run_step()
    return trainer.storage


BATCH = [torch.tensor([6.0, 0.0, 8.0]), torch.tensor([0.0, 0.0, 0.0])]  # mean (3, 0, 4), norm 5


def test_gradient_is_clipped_as_a_whole():
    trainer = make_trainer(BATCH)
    storage = one_step(trainer)
    expected = torch.ones(3) - torch.tensor([3.0, 0.0, 4.0]) / 5 * 0.1
    torch.testing.assert_close(trainer.model.weight.detach(), expected, rtol=1e-5, atol=1e-6)
    assert storage.history("grad_norm").latest() == pytest.approx(5.0)
    assert storage.history("total_loss").latest() == pytest.approx(7.0)


def test_max_norm_zero_leaves_the_gradient():
    trainer = make_trainer(BATCH, clip_max_norm=0)
    storage = one_step(trainer)
    torch.testing.assert_close(trainer.model.weight.detach(), torch.tensor([-2.0, 1.0, -3.0]))
    assert storage.history("grad_norm").latest() == pytest.approx(5.0)


def test_an_immense_gradient_is_left_as_it_is():
    """Its norm is infinite, but each number is finite, which is all that the loss scale checks."""
    trainer = make_trainer(BATCH, clip_max_norm=0)
    trainer.precision.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    trainer.model.weight.register_hook(lambda grad: grad * 1e25)
    one_step(trainer)
    torch.testing.assert_close(trainer.model.weight.detach(), torch.tensor([-3e25, 1.0, -4e25]))


@pytest.mark.parametrize("clip_max_norm", [0, 0.1])
def test_a_gradient_that_is_not_finite_is_not_applied(clip_max_norm):
    """The weights stay as they are even if the loss is finite and nothing is clipped."""
    trainer = make_trainer(BATCH, clip_max_norm=clip_max_norm)
    trainer.model.weight.register_hook(lambda grad: grad * float("nan"))
    with pytest.raises(TrainingDiverged, match="gradient norm is nan at iteration 0"):
        one_step(trainer)
    torch.testing.assert_close(trainer.model.weight.detach(), torch.ones(3))


def test_clipping_comes_after_unscaling():
    """If the scaled gradient were clipped, the step would be 1024 times smaller and the norm 5120."""
    trainer = make_trainer(BATCH)
    trainer.precision.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    storage = one_step(trainer)
    expected = torch.ones(3) - torch.tensor([3.0, 0.0, 4.0]) / 5 * 0.1
    torch.testing.assert_close(trainer.model.weight.detach(), expected, rtol=1e-5, atol=1e-6)
    assert storage.history("grad_norm").latest() == pytest.approx(5.0)


def test_infinite_scaled_gradient_skips_the_step_and_halves_the_scale():
    trainer = make_trainer([torch.full((3,), 1e36)])  # 1024 times that is beyond float32
    trainer.model.weight.data.fill_(1e-36)
    trainer.precision.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = trainer.model.weight.detach().clone()
    one_step(trainer)
    torch.testing.assert_close(trainer.model.weight.detach(), before, rtol=0, atol=0)
    assert trainer.state_dict()["grad_scaler"]["scale"] == 512.0


@pytest.mark.parametrize(("enabled", "dtype"), [(False, torch.float32), (True, torch.bfloat16)])
def test_bfloat16_reaches_the_forward_pass(enabled, dtype):
    trainer = make_trainer(BATCH, precision=Precision(enabled=enabled, dtype="bfloat16", device="cpu"))
    one_step(trainer)
    assert trainer.model.dtypes == [dtype]
    assert trainer.model.weight.dtype is torch.float32


def test_float16_on_the_cpu_is_refused_with_a_remedy():
    with pytest.raises(EnvironmentProblem, match="bfloat16"):
        Precision(enabled=True, dtype="float16", device="cpu")
    Precision(enabled=False, dtype="float16", device="cpu")


def test_unknown_precision():
    with pytest.raises(ConfigError, match="float8"):
        Precision(enabled=True, dtype="float8", device="cpu")


def test_divergence_names_the_loss_and_the_iteration_and_spares_the_weights():
    trainer = make_trainer([torch.full((3,), float("nan"))])
    trainer.iter = 17
    with pytest.raises(TrainingDiverged, match=r"iteration 17: loss_bbox=nan, loss_class=nan"):
        one_step(trainer)
    torch.testing.assert_close(trainer.model.weight.detach(), torch.ones(3))


def test_infinite_gradient_of_finite_losses_is_found():
    trainer = make_trainer([torch.zeros(3)])
    trainer.model.weight.register_hook(lambda gradient: gradient + float("inf"))
    with pytest.raises(TrainingDiverged, match="gradient norm is"):
        one_step(trainer)


def test_a_prediction_that_is_not_finite_gets_the_iteration(monkeypatch):
    trainer = make_trainer(BATCH)
    trainer.iter = 17

    def forward(batch):
        raise NonFinitePrediction("Query 3 of image 1 is NaN")

    monkeypatch.setattr(trainer.model, "forward", forward)
    with pytest.raises(NonFinitePrediction, match=r"^Query 3 of image 1 is NaN \(iteration 17\)\.$"):
        one_step(trainer)


def test_errors_leave_the_loop_and_the_iteration_shows_success():
    trainer = make_trainer(BATCH)
    trainer.train(0, 3)
    assert trainer.iter == 3
    with pytest.raises(StopIteration):
        trainer.train(0, 3)
    assert trainer.iter == 1  # the fifth batch of four


def test_the_evaluation_hook_keeps_its_last_results():
    """Of four iterations with period 2, the second is followed by an evaluation, and the last by another."""
    trainer = make_trainer(BATCH)
    rounds = itertools.count(1)
    hook = EvaluationHook(2, lambda: {"bbox": {"AP": float(next(rounds))}})
    assert hook.results == {}
    trainer.register_hooks([hook])
    trainer.train(0, 4)
    assert hook.results == {"bbox": {"AP": 2.0}}
    assert trainer.storage.history("bbox/AP").values() == [(1.0, 1), (2.0, 4)]


def test_no_evaluation_follows_a_failure():
    trainer = make_trainer(BATCH)
    hook = EvaluationHook(0, lambda: {"bbox": {"AP": 1.0}})
    trainer.register_hooks([hook])
    with pytest.raises(StopIteration):
        trainer.train(0, 5)  # the fifth batch of four
    assert hook.results == {}


def test_ema_follows_the_slow_formula_and_copies_buffers():
    model = nn.BatchNorm1d(2)
    ema = ModelEMA(model=model, decay=0.3)
    average = [1.0, 1.0]
    for n, value in enumerate([2.0, -1.0, 5.0, 0.5], start=1):
        with torch.no_grad():
            model.weight.copy_(torch.tensor([value, 2 * value]))
            model.running_mean.fill_(value)
        ema.update()
        decay = min(0.3, (1 + n) / (10 + n))  # 2/11, 3/12, 4/13 -> 0.3, 0.3
        average = [decay * a + (1 - decay) * v for a, v in zip(average, (value, 2 * value), strict=True)]
        torch.testing.assert_close(ema.module.weight, torch.tensor(average))
        assert ema.module.running_mean.tolist() == [value, value]
    assert not ema.module.training and not ema.module.weight.requires_grad

    restored = ModelEMA(model=nn.BatchNorm1d(2), decay=0.3)
    restored.load_state_dict(ema.state_dict())
    assert restored.num_updates == 4
    torch.testing.assert_close(restored.module.weight, ema.module.weight)
    ema.reset()
    assert ema.num_updates == 0 and ema.module.weight.tolist() == model.weight.tolist()


def test_constructors_take_keywords_only():
    with pytest.raises(TypeError):
        ModelEMA(nn.Linear(2, 2))
    with pytest.raises(TypeError):
        UpdateEMA(ModelEMA(model=nn.Linear(2, 2)))


def test_ema_of_another_model_is_refused():
    with pytest.raises(ConfigError, match="do not fit"):
        ModelEMA(model=nn.Linear(2, 2)).load_state_dict(ModelEMA(model=nn.Linear(3, 2)).state_dict())
    with pytest.raises(ConfigError, match="decay"):
        ModelEMA(model=nn.Linear(2, 2), decay=1.0)


def test_workers_end_before_the_last_evaluation():
    """Closing the loader's iterator ends its workers."""
    closed = []

    def batches():
        try:
            while True:
                yield [torch.ones(3)]
        finally:
            closed.append(True)

    trainer = make_trainer([torch.ones(3)])
    trainer._data_loader_iter = batches()
    at_the_end = []
    trainer.register_hooks([EvaluationHook(0, lambda: at_the_end.extend(closed) or {})])
    trainer.train(0, 2)
    assert at_the_end == [True]
