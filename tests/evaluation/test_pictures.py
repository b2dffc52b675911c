"""Pictures of an evaluation."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from PIL import Image

from align_detr.evaluation import EvaluationSet, GroundTruth
from align_detr.evaluation.pictures import PictureEvaluator, with_pictures
from align_detr.inference.drawing import color_of


def truth() -> GroundTruth:
    """Images 5, 6 and 7, of 80 x 40 pixels, of which 6 has no object."""
    box = {"category_id": 2, "bbox": [10.0, 20.0, 40.0, 10.0], "area": 400.0, "iscrowd": 0}
    return GroundTruth(
        dataset_name="cells",
        images={5: 1, 6: 2, 7: 3},
        file_names={key: f"/photos/{key}.png" for key in (5, 6, 7)},
        annotations=[{**box, "id": 1, "image_id": 1}, {**box, "id": 2, "image_id": 3}],
        class_names=["red", "white"],
        is_named=True,
        original_categories={},
    )


def found(scores: list[float]) -> dict[str, Any]:
    """Detections of class 0 in an image of 80 x 40 pixels."""
    boxes = torch.tensor([[20.0, 10.0, 70.0, 30.0]]).repeat(len(scores), 1)
    classes = torch.zeros(len(scores), dtype=torch.long)
    return {
        "instances": Instances((40, 80), pred_boxes=Boxes(boxes), scores=torch.tensor(scores), pred_classes=classes)
    }


def entry(key: int) -> dict[str, Any]:
    """An image as the model gets it: twice as large."""
    return {"image_id": key, "image": torch.full((3, 80, 160), 128, dtype=torch.uint8)}


def test_boxes_are_where_they_belong(tmp_path: Path) -> None:
    """Left the object and right the detection, both twice as far from the corner as in the file."""
    evaluator = PictureEvaluator(truth(), count=4, folder=tmp_path / "pictures")
    evaluator.process([entry(5), entry(6)], [found([0.9]), found([0.9])])
    assert evaluator.evaluate() == {}
    (file,) = (tmp_path / "pictures").iterdir()
    pixels = np.asarray(Image.open(file))
    assert file.name == "5_5.png" and pixels.shape == (80, 320, 3)
    assert tuple(pixels[60, 60]) == tuple(pixels[50, 20]) == color_of(1)
    assert tuple(pixels[60, 160 + 60]) == tuple(pixels[50, 160 + 40]) == color_of(0)


def test_weak_detections_are_left_out(tmp_path: Path) -> None:
    """Below a score of 0.3; and old pictures make way."""
    evaluator = PictureEvaluator(truth(), count=1, folder=tmp_path)
    (tmp_path / "old.png").touch()
    evaluator.process([entry(5), entry(7)], [found([0.29]), found([])])
    evaluator.evaluate()
    assert [path.name for path in tmp_path.iterdir()] == ["5_5.png"]
    assert (np.asarray(Image.open(tmp_path / "5_5.png"))[:, 160:] == 128).all()


def test_tensorboard_gets_them(tmp_path: Path) -> None:
    """By the event storage of a training loop, at its iteration, on a channel each for red, green and blue."""
    evaluator = PictureEvaluator(truth(), count=4, folder=tmp_path / "pictures")
    evaluator.process([entry(5)], [found([0.9])])
    with EventStorage(7) as storage:
        evaluator.evaluate()
    ((name, image, iteration),) = storage._vis_data
    assert (name, image.shape, iteration) == ("pictures/5_5", (3, 80, 320), 7)


@pytest.mark.parametrize("count", [0, 2])
def test_only_where_the_truth_is_known(count: int, tmp_path: Path) -> None:
    """Of two sets each has a folder; of an evaluator without ground truth there are no pictures."""

    class Known:
        truth = truth()

    sets = [EvaluationSet(name, [], evaluator) for name, evaluator in (("a/b", Known()), ("c", object()))]
    first, second = with_pictures(sets, count, tmp_path)
    assert len(second.evaluator) == 1 and len(first.evaluator) == 1 + (count > 0)
    if count:
        assert first.evaluator[1].folder == tmp_path / "pictures" / "a_b"
