"""Images with more objects than a model can find."""

from pathlib import Path

import pytest

import align_detr
from align_detr.engine import capacity
from align_detr.engine.capacity import object_limits
from support import trees
from support.shrink import config


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("detr/detr_r50_500ep.py", {"queries.num_queries": 100}),
        ("dab_detr/dab_detr_r50_3patterns_50ep.py", {"queries.num_queries": 900, "postprocess.num_detections": 300}),
        (
            "dino/dino_r50_4scale_12ep.py",
            {"proposals.num_queries": 900, "queries.main.num_queries": 900, "postprocess.num_detections": 300},
        ),
        (
            "h_deformable_detr/h_deformable_detr_r50_12ep.py",
            {"proposals.num_queries": 1800, "queries.num_one_to_one": 300, "postprocess.num_detections": 100},
        ),
        ("FasterRCNN/faster_rcnn_digits.py", {}),
    ],
)
def test_the_limits_of_a_model_are_those_of_its_config(name: str, limits: dict[str, int]) -> None:
    """Queries, of all patterns, and detections kept; an R-CNN of detectron2 states none by these names."""
    assert dict(object_limits(config(name).model)) == {f"model.{key}": limit for key, limit in limits.items()}


@pytest.mark.parametrize(("queries", "detections"), [(2, 100), (20, 2), (2, 1), (3, 3)])
def test_training_warns_once_of_images_with_more_objects_than_the_model_can_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, queries: int, detections: int
) -> None:
    """The fullest photo has three objects, and a crowd region that is none; the keys to raise are named, no others."""
    trees.write_images(tmp_path / "data")
    coco = trees.coco()
    coco["annotations"].append({**coco["annotations"][0], "id": 9, "iscrowd": 1})
    trees.write_json(tmp_path / "data/train.json", coco)
    lines: list[str] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(capacity.logger, "warning", lambda text, *values: lines.append(text % values))
    overrides = [
        "train.max_iter=1", "train.eval_period=0", "train.device=cpu", "dataloader.train.total_batch_size=1",
        "model.decoder.num_layers=1", "model.encoder.num_layers=1",
        f"model.queries.num_queries={queries}", f"model.postprocess.num_detections={detections}",
    ]  # fmt: skip
    align_detr.train("quickstart/digits_dab_detr.py", data=tmp_path / "data", overrides=overrides)
    if min(queries, detections) == 3:
        assert lines == []
        return
    (line,) = lines
    assert "1 images have more objects, up to 3," in line
    assert (f"model.queries.num_queries (it allows {queries})" in line) == (queries < 3)
    assert (f"model.postprocess.num_detections (it allows {detections})" in line) == (detections < 3)
