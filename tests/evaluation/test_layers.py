"""The detections of every decoder layer are those of a decoder that ends there, and the last layer's the model's."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import instantiate
from torch import nn

from align_detr.data import load_dataset
from align_detr.errors import ConfigError
from align_detr.evaluation import RESULTS_FILE, DetectionEvaluator, EvaluationSet
from align_detr.evaluation.evaluate_layers import MATCHING_FILE, evaluate_layers
from align_detr.evaluation.layers import FOLDER, detect_layers, layer_files, recorded
from align_detr.modeling.meta_arch import DETR
from support.detectors import (
    deformable_detector,
    single_scale_detector,
    tiny_detr,
    tiny_dino,
    tiny_tsp_fcos,
)
from support.inputs import image_input
from support.oracle import PerfectDetector, records
from support.shrink import small_model

BUILD: dict[str, Callable[[], DETR]] = {
    "detr": tiny_detr,
    "conditional": lambda: single_scale_detector("conditional"),
    "group": lambda: single_scale_detector("group"),
    "two_stage": lambda: deformable_detector("two_stage"),
    "dino": lambda: tiny_dino(align=True),
}


def batch() -> list[dict[str, Any]]:
    """Images of two sizes, not in order of size, of which one wants another size of its output."""
    torch.manual_seed(1)
    images = [image_input(*size, 2) for size in ((96, 64), (64, 96), (96, 64))]
    images[2].update(height=192, width=32)
    return images


def ending_at(model: DETR, layers: int) -> DETR:
    """A copy of the detector whose decoder has the first layers only."""
    short = copy.deepcopy(model)
    short.decoder.layers = short.decoder.layers[:layers]
    for name, module in short.head.named_children():
        if isinstance(module, nn.ModuleList):  # one classifier and box MLP per layer
            setattr(short.head, name, module[:layers])
    return short


def numbers(results: list[dict[str, Any]]) -> list[torch.Tensor]:
    fields = [result["instances"] for result in results]
    return [torch.cat([x.pred_boxes.tensor, x.scores[:, None], x.pred_classes[:, None]], dim=1) for x in fields]


@pytest.mark.parametrize("kind", BUILD)
def test_each_layer_reports_what_a_decoder_that_ends_there_does(kind: str) -> None:
    """In images of several sizes, and in the order of the images."""
    model, inputs = BUILD[kind]().eval(), batch()
    ((given, found),) = detect_layers(model, [inputs])
    layers = len(model.decoder.layers)
    assert given is inputs and sorted(found) == list(range(0 if kind == "dino" else 1, layers + 1))
    for layer in range(1, layers + 1):
        with torch.no_grad():
            expected = numbers(ending_at(model, layer)(inputs))
        assert all(torch.equal(*pair) for pair in zip(numbers(found[layer]), expected, strict=True))
    assert not torch.equal(numbers(found[1])[0], numbers(found[layers])[0])
    with torch.no_grad():
        assert all(torch.equal(*pair) for pair in zip(numbers(found[layers]), numbers(model(inputs)), strict=True))


def test_layer_0_are_the_proposals() -> None:
    """A proposal's best class is as probable as its classifier says; boxes are those of the references."""
    model, inputs = tiny_dino(num_queries=4).eval(), batch()[:1]
    ((_, found),) = detect_layers(model, [inputs])
    with torch.no_grad():
        proposals = model.proposals(model.encoder(model.extract_features([model.normalize(inputs[0]["image"])])))
    instances = found[0][0]["instances"]
    probability = proposals.predictions.logits[0, 0].sigmoid()
    assert instances.scores[0] == probability.max()
    x, y, w, h = (
        proposals.reference[0, int(probability.max(-1).values.argmax())] * torch.tensor([64, 96, 64, 96])
    ).tolist()
    corners = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
    clipped = [min(max(value, 0), side) for value, side in zip(corners, [64, 96, 64, 96], strict=True)]
    assert instances.pred_boxes.tensor[0].tolist() == pytest.approx(clipped, abs=1e-3)


def test_recording_leaves_no_hook_and_takes_a_loss_in_between() -> None:
    """A pass in training mode between the model's and `take` changes nothing."""
    model, inputs = tiny_dino(), batch()
    with recorded(model) as recording, torch.no_grad():
        model.eval()(inputs)
        model.train()(inputs)
        found = recording.take(inputs)
        assert recording.take([]) == {}
    ((_, expected),) = detect_layers(model, [inputs])
    assert all(
        torch.equal(*pair) for k in expected for pair in zip(numbers(found[k]), numbers(expected[k]), strict=True)
    )
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_model_without_decoder_is_refused() -> None:
    with pytest.raises(ConfigError, match="TSPFCOS is no DETR"), recorded(tiny_tsp_fcos()):
        pass


def test_scores_of_an_iou_branch_leave_the_proposals_out() -> None:
    """They have no predicted IoU."""
    torch.manual_seed(0)
    model = instantiate(small_model("ablations/dino_r50_iou_branch_fused_12ep.py"))
    ((_, found),) = detect_layers(model, [batch()])
    assert sorted(found) == [1, 2]


@pytest.fixture
def digits(register: Callable[..., str]) -> str:
    """A data set with the images and boxes of `batch`, in the second a class that no other has."""
    images = [[(label, (10.0, 20.0, 40.0, 60.0)), (0, (5.0, 5.0, 30.0, 30.0))] for label in (0, 2, 1)]
    return register(records(images), "of_layers", thing_classes=["a", "b", "c"])


def inputs_of(name: str) -> list[dict[str, Any]]:
    return [
        {**x, **{key: record[key] for key in ("image_id", "file_name")}}
        for x, record in zip(batch(), load_dataset(name), strict=True)
    ]


def test_one_run_evaluates_every_layer(digits: str, tmp_path: Path) -> None:
    """The last layer's file and metrics are those of the evaluation itself; MATCHING_FILE compares two checkpoints."""
    model, other = tiny_dino(align=True), copy.deepcopy(tiny_dino(align=True))
    inputs = inputs_of(digits)
    evaluator = DetectionEvaluator(dataset_name=digits, output_dir=str(tmp_path))
    one = EvaluationSet(digits, [inputs[:2], inputs[2:]], evaluator)
    results = evaluate_layers([one], model, other)
    assert list(results) == ["bbox", "layer_0", "layer_1", "layer_2"]
    assert results["bbox"] == pytest.approx(results["layer_2"], nan_ok=True)
    files = layer_files(tmp_path / FOLDER)
    assert list(files) == [0, 1, 2]
    assert files[2].read_bytes() == (tmp_path / RESULTS_FILE).read_bytes() != files[1].read_bytes()
    written = json.loads((tmp_path / FOLDER / MATCHING_FILE).read_text())
    assert set(written["sets"]) == {"main", "enc", "dn"} and written["sets"]["main"]["objects"] == 6
    assert written["between_checkpoints"] == [{"objects": 0.0, "queries_per_image": 0.0}] * 2, "it is the same model"


def test_inputs_without_boxes_have_no_matching(digits: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Loader(list):
        @property
        def dataset(self) -> list:
            return self[0]

    inputs = [{key: value for key, value in x.items() if key != "instances"} for x in inputs_of(digits)]
    evaluator = DetectionEvaluator(dataset_name=digits, output_dir=str(tmp_path))
    evaluate_layers([EvaluationSet(digits, Loader([inputs]), evaluator)], tiny_detr())
    assert list(layer_files(tmp_path / FOLDER)) == [1, 2] and not (tmp_path / FOLDER / MATCHING_FILE).exists()
    assert "have no boxes" in caplog.text


def test_another_evaluator_is_refused(digits: str) -> None:
    with pytest.raises(ConfigError, match=f"'{digits}' cannot be evaluated by PerfectDetector"):
        evaluate_layers([EvaluationSet(digits, [], PerfectDetector(digits))], tiny_detr())
