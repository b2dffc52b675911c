"""The loss on test data: the numbers of training, without a trace in the model or in the generators."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.utils.events import EventStorage
from torch import nn

from align_detr.data import DetrMapper
from align_detr.errors import ConfigError
from align_detr.evaluation import EvaluationSet, evaluate_sets
from align_detr.evaluation.validation_loss import LossEvaluator, with_losses
from support.inputs import image_input
from support.processes import in_two_processes
from support.shrink import small_model

CONFIGS = ["detr/detr_r50_500ep.py", "dino/dino_r50_4scale_12ep.py", "TSP/tsp_fcos_r50_36ep.py"]


def detector(name: str, **sizes: Any) -> nn.Module:
    torch.manual_seed(0)
    return instantiate(small_model(name, **sizes))


def images(*counts: int) -> list[dict[str, Any]]:
    torch.manual_seed(1)
    return [image_input(160, 160, count) for count in counts]


def losses_of(model: nn.Module, batches: list[list[dict[str, Any]]]) -> dict[str, float]:
    evaluator = LossEvaluator(model)
    for batch in batches:
        evaluator.process(batch, [])
    return evaluator.evaluate()


@pytest.mark.parametrize("name", CONFIGS)
def test_it_is_the_loss_of_training_without_dropout(name: str) -> None:
    """Of a model with dropout, as that of the same model without; denoising noise is that of seed 0."""
    found = losses_of(detector(name, dropout=0.3).eval(), [images(3)])
    torch.manual_seed(0)
    model, batch = detector(name, dropout=0.0).train(), images(3)
    torch.manual_seed(0)
    np.random.seed(0)
    with EventStorage(), torch.no_grad():
        expected = {f"val_{key}": float(value) for key, value in model(batch).items()}
    assert found == pytest.approx({"val_loss": sum(expected.values()), **expected}, rel=1e-5)


@pytest.mark.parametrize("name", ["dino/dino_swin_tiny_224_4scale_12ep.py", "dino/dino_vit_base_4scale_12ep.py"])
def test_it_is_the_loss_without_drop_path(name: str) -> None:
    """Of torchvision's blocks, and of timm's."""
    found = []
    for drop_path in (0.0, 0.9):
        torch.manual_seed(0)
        node = small_model(name)
        node.backbone.get("net", node.backbone).drop_path = drop_path
        found.append(losses_of(instantiate(node).eval(), [images(3)])["val_loss"])
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_images_count_alike_and_each_evaluation_gives_the_same() -> None:
    """The mean of batches of one image and of two is weighted by images, also of one without objects."""
    model = detector(CONFIGS[1]).eval()
    one, two, three = ([x] for x in images(2, 0, 4))
    of_each = [losses_of(model, [batch])["val_loss"] for batch in (one, [*two, *three])]
    mean = losses_of(model, [one, [*two, *three]])["val_loss"]
    assert mean == pytest.approx((of_each[0] + 2 * of_each[1]) / 3)
    assert losses_of(model, [one, [*two, *three]])["val_loss"] == mean


def test_it_leaves_no_trace() -> None:
    """Modes of all modules, buffers, gradients and generators are as before."""
    model = detector(CONFIGS[1]).train()
    model.backbone.eval()
    modes = [m.training for m in model.modules()]
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    batch = images(3)
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    expected = torch.rand(1), np.random.rand(), random.random()
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    losses_of(model, [batch])
    assert (torch.rand(1), np.random.rand(), random.random()) == expected
    assert modes == [m.training for m in model.modules()]
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())
    assert all(p.grad is None for p in model.parameters())


def of_shared_images(rank: int) -> float:
    """The loss of one image here and of two there, where the buffers have become others."""
    model, batches = detector(CONFIGS[1]), [[x] for x in images(2, 0, 4)]
    for buffer in model.buffers() if rank else ():
        buffer += 1
    one = EvaluationSet("shared", batches[:2] if rank == 0 else batches[2:], LossEvaluator(model))
    return evaluate_sets([one], model).get("val_loss", -1.0)


def test_two_processes_have_the_loss_of_one(tmp_path: Path) -> None:
    """Although one has two images and the other one, and batch norms have seen their own process's images alone."""
    expected = losses_of(detector(CONFIGS[1]).eval(), [[x] for x in images(2, 0, 4)])["val_loss"]
    assert in_two_processes(of_shared_images, tmp_path) == [pytest.approx(expected, rel=1e-5), -1.0]


def test_inputs_without_boxes_are_refused() -> None:
    class Images(list):
        @property
        def dataset(self) -> list[dict[str, Any]]:
            return [{"image": None}]

    with pytest.raises(ConfigError, match="needs the boxes of 'cells'"):
        with_losses([EvaluationSet("cells", Images(), [])], nn.Identity())


def test_a_mapper_keeps_boxes(tmp_path: Path) -> None:
    """In evaluation, if asked for."""
    from PIL import Image

    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    box = {"bbox": [1, 2, 3, 4], "bbox_mode": 1, "category_id": 1}
    record = {"file_name": str(tmp_path / "a.png"), "height": 10, "width": 20, "image_id": 1, "annotations": [box]}
    (mapped, plain) = (DetrMapper(augmentations=[], is_train=False, keep_boxes=k)(record) for k in (True, False))
    assert mapped["instances"].gt_boxes.tensor.tolist() == [[1, 2, 4, 6]] and "instances" not in plain


def test_evaluation_of_a_set_has_both(tmp_path: Path) -> None:
    """The metrics of the evaluator, and the losses."""

    class Metrics:
        def reset(self) -> None: ...
        def process(self, inputs: Any, outputs: Any) -> None: ...
        def evaluate(self) -> dict[str, dict[str, float]]:
            return {"bbox": {"AP": 1.0}}

    model = detector(CONFIGS[0])
    sets = with_losses([EvaluationSet("cells", [[x] for x in images(1, 2, 1, 1, 1, 1)], Metrics())], model)
    results = evaluate_sets(sets, model)
    assert results["bbox"] == {"AP": 1.0} and results["val_loss"] > 0 and "val_loss_giou_0" in results
    json.dumps(dict(results))
