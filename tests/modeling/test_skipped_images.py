"""`on_nonfinite="skip"` in whole detectors: an image whose activations are not finite leaves no trace in the step."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn
from torch.testing import assert_close

from align_detr.engine.precision import Precision
from align_detr.engine.trainer import Trainer
from align_detr.errors import ConfigError, NonFinitePrediction
from align_detr.modeling.backbone import build_small_resnet
from align_detr.modeling.meta_arch import DETR
from align_detr.structures import Memory, Predictions, SkippedImages, Targets
from support.detectors import deformable_detector, tiny_detr, tiny_dino
from support.inputs import image_input

NAN = float("nan")


def frozen_detr() -> DETR:
    """Return a DETR in which no image's features depend on another's."""
    model = tiny_detr()
    model.backbone = build_small_resnet(channels=(8, 12, 16, 24), blocks=(1, 1, 1, 1), norm="FrozenBN")
    return model


def skipping(build: Callable[[], DETR]) -> DETR:
    model = build().train()
    model.criterion.matcher.on_nonfinite = "skip"
    return model


def batch_of(*counts: int, broken: tuple[int, ...] = ()) -> list[dict]:
    """Return images of one size; a `broken` one has a NaN pixel."""
    torch.manual_seed(1)
    batch = [image_input(64, 96, n) for n in counts]
    for image in broken:
        batch[image]["image"] = batch[image]["image"].float()
        batch[image]["image"][1, 20, 30] = NAN
    return batch


def gradients(model: nn.Module, batch: list[dict]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return losses and gradients of a step."""
    model.zero_grad()
    losses = model(batch)
    sum(losses.values()).backward()
    return losses, {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    "build",
    [
        frozen_detr,
        lambda: deformable_detector("refine"),
        lambda: deformable_detector("two_stage"),
        lambda: deformable_detector("hybrid"),
    ],
    ids=["detr", "deformable", "two_stage", "hybrid"],
)
def test_as_if_the_batch_had_never_held_it(build: Callable[[], DETR]) -> None:
    """Losses and gradients of all parameters are those of the remaining images."""
    model, batch = skipping(build), batch_of(2, 3, 1, broken=(1,))
    with EventStorage(0) as storage:
        losses, found = gradients(model, batch)
    assert storage.latest()["skipped_images"][0] == 1
    alone, expected = gradients(model, [batch[0], batch[2]])
    assert losses.keys() == alone.keys()
    for name, value in alone.items():
        assert_close(losses[name], value, rtol=1e-5, atol=1e-6)
    assert expected["encoder.layers.0.ffn.linear1.weight"].any()  # a gradient there is
    for name, value in expected.items():
        scale = value.abs().max().item()
        assert_close(found[name], value, rtol=1e-4, atol=1e-5 * scale + 1e-9, msg=lambda m, name=name: f"{name}: {m}")


def test_images_that_break_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Image 2 fails in the second attempt only; the third attempt is without both."""
    model, batch = skipping(frozen_detr), batch_of(2, 3, 1)
    alone, expected = gradients(model, batch[:1])
    attempts, predict = [], model.predict

    def breaking(memory: Memory, targets: Targets) -> dict[str, Predictions]:
        attempts.append(targets.left_out)
        sets = predict(memory, targets)
        if len(attempts) < 3:
            sets["main"].boxes = sets["main"].boxes.index_fill(1, torch.tensor(len(attempts)), NAN)
        return sets

    monkeypatch.setattr(model, "predict", breaking)
    with EventStorage(0) as storage:
        losses, found = gradients(model, batch)
    assert attempts == [(), (1,), (1, 2)]
    assert storage.history("skipped_images").values() == [(2, 0)]
    for name, value in alone.items():
        assert_close(losses[name], value, rtol=1e-5, atol=1e-6)
    for name, value in expected.items():
        assert_close(found[name], value, rtol=1e-4, atol=1e-5 * value.abs().max().item() + 1e-9)


def test_a_criterion_of_two_arguments() -> None:
    """A criterion of a user's, around the library's or instead of it, is called as usual."""
    model, batch = skipping(frozen_detr), batch_of(2, 3, broken=(1,))
    expected = model(batch)

    class Doubled(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, sets: dict[str, Predictions], targets: Targets) -> dict[str, torch.Tensor]:
            return {name: 2 * value for name, value in self.inner(sets, targets).items()}

    model.criterion = Doubled(model.criterion)
    for name, value in model(batch).items():
        assert_close(value, 2 * expected[name])


def test_the_request_survives_copies() -> None:
    for request in (SkippedImages({2, 0}), pickle.loads(pickle.dumps(SkippedImages({2, 0})))):
        assert request.images == {0, 2} and str(request) == "Images [0, 2] of the batch are to be left out."


@pytest.mark.parametrize("norm", ["SyncBN", "naiveSyncBN"])
def test_no_norm_over_processes(norm: str) -> None:
    """Such norms raise: a process that starts again would wait for the others."""
    model = frozen_detr()
    parts = {key: getattr(model, key) for key in ("neck", "encoder", "queries", "decoder", "head", "postprocess")}
    parts["backbone"] = build_small_resnet(channels=(8, 12, 16, 24), blocks=(1, 1, 1, 1), norm=norm)
    DETR(criterion=model.criterion, **parts)
    model.criterion.matcher.on_nonfinite = "skip"
    for criterion in (model.criterion, nn.Sequential(model.criterion)):  # wrapped in a user's, too
        with pytest.raises(ConfigError, match='on_nonfinite is "skip", which does not go together with batch norm'):
            DETR(criterion=criterion, **parts)


@pytest.mark.parametrize("align", [False, True])
def test_denoising_and_proposals(align: bool) -> None:
    """Names are equal, and values are finite; noise is drawn anew, so that values differ."""
    model = skipping(lambda: tiny_dino(align=align))
    losses, found = gradients(model, batch_of(2, 3, broken=(0,)))
    assert losses.keys() == gradients(model, batch_of(2, 3))[0].keys()
    assert all(torch.isfinite(value) for value in losses.values()) and sum(losses.values()) > 0
    assert all(torch.isfinite(grad).all() for grad in found.values())


def test_a_batch_of_nothing_else_gives_zeros() -> None:
    model = skipping(lambda: tiny_dino(align=True))
    losses, found = gradients(model, batch_of(2, 3, broken=(0, 1)))
    assert losses.keys() == gradients(model, batch_of(2, 3))[0].keys()
    assert all(value == 0 for value in losses.values())
    assert all((grad == 0).all() for grad in found.values())


def test_weights_that_are_to_blame() -> None:
    """They raise: no image is at fault, and blank ones are as broken."""
    model = skipping(frozen_detr)
    with torch.no_grad():
        model.head.class_embed.weight[0, 0] = NAN
    with pytest.raises(NonFinitePrediction, match="set 'main', layer 0, image number 0 of the batch, query 0"):
        model(batch_of(2, 3))


@pytest.mark.parametrize("clip_max_norm", [0.0, 0.1])
def test_the_trainer_takes_the_step(clip_max_norm: float) -> None:
    """Afterwards every weight is finite, and updated as by the other image alone."""
    models = [skipping(frozen_detr)]
    models.append(copy.deepcopy(models[0]))
    batch = batch_of(2, 3, broken=(0,))
    for model, images in zip(models, (batch, batch[1:]), strict=True):
        trainer = Trainer(
            model=model,
            data_loader=[images],
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            precision=Precision(),
            clip_max_norm=clip_max_norm,
        )
        trainer.iter = trainer.start_iter = 0
        with EventStorage(0) as trainer.storage:
            trainer.run_step()
    for (name, p), q in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        assert torch.isfinite(p).all(), name
        assert_close(p, q, rtol=1e-4, atol=1e-6)
