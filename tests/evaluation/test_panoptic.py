"""Panoptic quality by hand, against a slow formula, and beside detectron2's evaluator."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.evaluation import COCOPanopticEvaluator
from PIL import Image

from align_detr.data import load_dataset, register_panoptic
from align_detr.data.panoptic import as_picture
from align_detr.errors import ConfigError, DatasetError
from align_detr.evaluation import PanopticEvaluator
from align_detr.evaluation.panoptic import match_segments, mean_quality
from support.datasets import forgotten

NAME = "pq_for_tests"


def segments(*classes: int, **more: Any) -> list[dict[str, Any]]:
    """Return segments 1, 2, ... of these classes."""
    return [{"id": number, "category_id": label, **more} for number, label in enumerate(classes, start=1)]


def test_by_hand() -> None:
    """Of ten pixels, a true segment has 0 to 5 and its match 0 to 3 (IoU 4/6); the others have IoU 2/4 + 2 = 1/3."""
    truth = np.array([[1, 1, 1, 1, 1, 1, 2, 2, 2, 2]])
    found = np.array([[1, 1, 1, 1, 2, 2, 2, 2, 0, 0]])
    sums = match_segments(found, segments(0, 1), truth, segments(0, 1), num_classes=3)
    assert sums.tolist() == [[pytest.approx(4 / 6), 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]]
    pq, sq, rq = mean_quality(sums)
    assert (pq, sq, rq) == pytest.approx((100 * (4 / 6 + 0) / 2, 100 * (4 / 6 + 0) / 2, 50.0))


def test_of_another_class_it_is_both_false_and_missed() -> None:
    ids = np.ones((2, 2), dtype=int)
    sums = match_segments(ids, segments(1), ids, segments(0), num_classes=2)
    assert sums.tolist() == [[0, 0, 0, 1], [0, 0, 1, 0]]


def test_pixels_without_truth_do_not_count() -> None:
    """The overlap is 3 of 4 true pixels; 5 of the found 8 lie where there is no truth: IoU 3/4, not 3/9."""
    truth = np.array([[1, 1, 1, 1, 0, 0, 0, 0, 0]])
    found = np.array([[0, 1, 1, 1, 1, 1, 1, 1, 1]])
    assert match_segments(found, segments(0), truth, segments(0), num_classes=1).tolist() == [[0.75, 1, 0, 0]]
    alone = np.array([[0, 0, 0, 0, 0, 0, 1, 1, 1]])
    assert match_segments(alone, segments(0), truth, segments(0), num_classes=1).tolist() == [[0, 0, 0, 1]]


def test_crowd_regions_are_never_missed_and_excuse_their_class() -> None:
    truth = np.array([[1, 1, 1, 1]])
    crowd = segments(0, iscrowd=1)
    nothing = np.zeros((1, 4), dtype=int)
    assert not match_segments(nothing, [], truth, crowd, num_classes=2).any()
    assert not match_segments(truth, segments(0), truth, crowd, num_classes=2).any()
    assert match_segments(truth, segments(1), truth, crowd, num_classes=2).tolist() == [[0, 0, 0, 0], [0, 0, 1, 0]]


def slow(found: np.ndarray, found_classes: dict, truth: np.ndarray, classes: dict, num_classes: int) -> np.ndarray:
    """Every pair of segments of a class, pixel by pixel."""
    sums = np.zeros((num_classes, 4))
    hit_truth, hit_found = set(), set()
    for t, label in classes.items():
        for f, other in found_classes.items():
            a, b = truth == t, (found == f) & (truth != 0)
            if label == other and (a & b).sum() / (a | b).sum() > 0.5:
                sums[label, 0] += (a & b).sum() / (a | b).sum()
                sums[label, 1] += 1
                hit_truth.add(t)
                hit_found.add(f)
    for f, label in found_classes.items():
        outside = ((found == f) & (truth == 0)).sum() / (found == f).sum()
        sums[label, 2] += f not in hit_found and outside <= 0.5
    for t, label in classes.items():
        sums[label, 3] += t not in hit_truth
    return sums


def test_against_a_slow_formula() -> None:
    random = np.random.default_rng(0)
    total = np.zeros((3, 4))
    for _ in range(30):
        truth = random.integers(0, 6, (3, 4)).repeat(4, 0).repeat(4, 1)
        found = np.where(random.random(truth.shape) < 0.25, random.integers(0, 6, truth.shape), truth)
        classes, others = ({int(k): int(random.integers(3)) for k in np.unique(x) if k} for x in (truth, found))
        others = {k: classes.get(k, c) if random.random() < 0.7 else c for k, c in others.items()}
        infos = [[{"id": k, "category_id": c} for k, c in each.items()] for each in (others, classes)]
        expected = slow(found, others, truth, classes, 3)
        np.testing.assert_allclose(match_segments(found, infos[0], truth, infos[1], num_classes=3), expected)
        total += expected
    assert (total > 0).all()


@pytest.fixture
def registered(tmp_path: Path) -> list[tuple[dict, dict]]:
    """Register two images of 4 x 6, and return inputs and outputs: one right, one with a class of stuff missed."""
    (tmp_path / "segments").mkdir()
    truth = np.array([[1, 1, 1, 2, 2, 2]] * 4)
    images, annotations, pairs = [], [], []
    for number in (1, 2):
        Image.fromarray(np.zeros((4, 6, 3), dtype=np.uint8)).save(tmp_path / f"{number}.jpg")
        Image.fromarray(as_picture(truth)).save(tmp_path / "segments" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.jpg", "width": 6, "height": 4})
        infos = [
            {"id": 1, "category_id": 20, "iscrowd": 0, "area": 12, "bbox": [0, 0, 3, 4]},
            {"id": 2, "category_id": 5, "iscrowd": 0, "area": 12, "bbox": [3, 0, 3, 4]},
        ]
        annotations.append({"image_id": number, "file_name": f"{number}.png", "segments_info": infos})
        ids = torch.tensor(truth) if number == 1 else torch.tensor(truth).clamp(max=1)
        found = [{"id": 1, "isthing": True, "category_id": 0, "area": 12, "score": 0.9}]
        if number == 1:
            found.append({"id": 2, "isthing": False, "category_id": 1, "area": 12, "score": 0.9})
        pairs.append(
            ({"image_id": number, "file_name": str(tmp_path / f"{number}.jpg")}, {"panoptic_seg": (ids, found)})
        )
    categories = [{"id": 5, "name": "sky", "isthing": 0}, {"id": 20, "name": "cat", "isthing": 1}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    register_panoptic(
        NAME,
        panoptic_json=tmp_path / "panoptic.json",
        panoptic_root=tmp_path / "segments",
        image_root=tmp_path,
    )
    with forgotten(NAME):
        load_dataset(NAME)
        yield pairs


def test_evaluator(registered: list[tuple[dict, dict]]) -> None:
    """The cat is found in one image, and not in the other, where it fills the image (IoU 1/2); the sky in one."""
    evaluator = PanopticEvaluator(dataset_name=NAME)
    for _ in range(2):
        evaluator.reset()
        evaluator.process(*map(list, zip(*registered, strict=True)))
        results = evaluator.evaluate()
    values = results["panoptic_seg"]
    assert sorted(f"panoptic_seg/{key}" for key in values) == sorted(evaluator.result_names)
    rq_cat, rq_sky = 1 / (1 + 0.5 + 0.5), 1 / (1 + 0.5)
    assert values["PQ_th"] == pytest.approx(100 * rq_cat) and values["PQ_st"] == pytest.approx(100 * rq_sky)
    assert values["PQ"] == values["RQ"] == pytest.approx(50 * (rq_cat + rq_sky)) and values["SQ"] == 100.0


def test_detectron2_s_evaluator_takes_the_outputs(
    registered: list[tuple[dict, dict]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a stand-in for panopticapi, whose files hold COCO's ids."""
    seen: dict[str, Any] = {}

    def pq_compute(gt_json: str, pred_json: str, gt_folder: str, pred_folder: str) -> dict:
        seen.update(json.loads(Path(pred_json).read_text()), truth=gt_folder)
        seen["picture"] = np.asarray(Image.open(Path(pred_folder) / "1.png"))
        return {name: {"pq": 0.5, "sq": 1.0, "rq": 0.5, "n": 1} for name in ("All", "Things", "Stuff")}

    for name, functions in {"utils": {"id2rgb": as_picture}, "evaluation": {"pq_compute": pq_compute}}.items():
        module = ModuleType(f"panopticapi.{name}")
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, "panopticapi", ModuleType("panopticapi"))
    evaluator = COCOPanopticEvaluator(NAME, str(tmp_path / "out"))
    evaluator.reset()
    evaluator.process(*map(list, zip(*registered, strict=True)))
    assert evaluator.evaluate()["panoptic_seg"]["PQ"] == 50.0
    assert [s["category_id"] for s in seen["annotations"][0]["segments_info"]] == [20, 5]
    assert (seen["picture"][..., 0] == [[1, 1, 1, 2, 2, 2]] * 4).all() and seen["truth"].endswith("segments")


def test_what_cannot_be_evaluated_is_one_sentence(registered: list[tuple[dict, dict]], tmp_path: Path) -> None:
    evaluator = PanopticEvaluator(dataset_name=NAME)
    given, output = registered[0]
    with pytest.raises(ConfigError, match="no panoptic_seg: set model.panoptic"):
        evaluator.process([given], [{}])
    with pytest.raises(DatasetError, match="The image 7 is not one of the data set"):
        evaluator.process([{**given, "image_id": 7}], [output])
    with pytest.raises(DatasetError, match=r"has the size \(4, 6\), but the output of its image \(3, 6\)"):
        evaluator.process([given], [{"panoptic_seg": (output["panoptic_seg"][0][:3], [])}])
    (tmp_path / "panoptic.json").unlink()
    with pytest.raises(DatasetError, match="do not exist: load the data set first"):
        PanopticEvaluator(dataset_name=NAME)
    with pytest.raises(ConfigError, match="has no panoptic annotations"):
        PanopticEvaluator(dataset_name="digits_val")
    assert np.isnan(mean_quality(np.zeros((0, 4)))).all()
