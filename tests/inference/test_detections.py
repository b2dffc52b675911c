"""What becomes of detections: pictures, COCO's results, other libraries' classes."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.data import Metadata
from detectron2.structures import Boxes
from detectron2.utils.visualizer import Visualizer
from PIL import Image

from align_detr.errors import ConfigError, DatasetError, EnvironmentProblem
from align_detr.inference import Detections
from align_detr.inference.classes import Classes
from align_detr.inference.drawing import color_of, draw_boxes

BOXES = [[20.0, 40, 70, 90], [5.0, 3, 60, 30], [90.0, 50, 110, 70]]
NAMES = ["Schraube", "Öse"]


@pytest.fixture
def found() -> Detections:
    """Three detections in an image of 120x100 pixels; the last scores low."""
    return Detections(
        (100, 120),
        _classes=Classes(NAMES, {0: 7}),
        pred_boxes=Boxes(torch.tensor(BOXES)),
        scores=torch.tensor([0.9, 0.5, 0.1]),
        pred_classes=torch.tensor([0, 1, 0]),
    )


def test_category_ids_are_the_data_sets_where_they_are_known(found: Detections) -> None:
    """Class 0 is category 7; class 1 has none and counts from 1."""
    assert [x["category_id"] for x in found.to_coco(3)] == [7, 2, 7]
    assert found.to_coco(3)[1] == {"image_id": 3, "category_id": 2, "bbox": [5, 3, 55, 27], "score": 0.5}


def test_a_picture_shows_what_scores_enough(found: Detections) -> None:
    """The edges of its boxes in the colour of the class, and nothing of the third; the image itself stays."""
    image = Image.new("RGB", (120, 100), "white")
    drawn = found.draw(image)
    assert drawn.getpixel((20, 70)) == color_of(0) and drawn.getpixel((60, 20)) == color_of(1)
    assert drawn.getpixel((90, 60)) == (255, 255, 255) == image.getpixel((20, 70))
    assert found.draw(image, threshold=0).getpixel((90, 60)) == color_of(0)
    label = np.asarray(drawn.crop((20, 20, 70, 39))).reshape(-1, 3)  # above the first box
    assert (label == color_of(0)).all(1).mean() > 0.3 and len(np.unique(label, axis=0)) > 3  # letters are smoothed


def test_a_label_stays_inside_of_the_picture() -> None:
    """Of a box at the upper right corner: below its edge, and as far to the left as it needs."""
    blank = Image.new("RGB", (400, 300), "white")
    drawn = draw_boxes(blank, boxes=[[390, 0, 400, 20]], scores=[0.5], classes=[0], names=["a long name of a class"])
    painted = np.argwhere((np.asarray(drawn) == color_of(0)).all(2))
    assert painted[:, 1].min() < 300 and painted.min() >= 0


def test_pictures_are_saved(found: Detections, tmp_path: Path) -> None:
    image = Image.new("RGB", (120, 100), "white")
    with Image.open(found.save(tmp_path / "new" / "a.png", image)) as saved:
        assert saved.tobytes() == found.draw(image).tobytes()
    found.save(tmp_path / "a.jpg", image)
    with pytest.raises(DatasetError, match=r"a\.xyz cannot be written .*: name an image file, such as found\.jpg"):
        found.save(tmp_path / "a.xyz", image)
    with pytest.raises(ConfigError, match="do not know their image: pass it"):
        found.draw()
    with pytest.raises(ConfigError, match="image to draw on has 30x20 pixels, but the detections are of one with 120x"):
        found.draw(Image.new("RGB", (30, 20)))


def test_detectron2_draws_them(found: Detections) -> None:
    metadata = Metadata(name="parts", thing_classes=NAMES)
    drawn = Visualizer(np.full((100, 120, 3), 255, np.uint8), metadata).draw_instance_predictions(found).get_image()
    assert drawn.shape == (100, 120, 3) and (drawn < 255).any()


def test_supervision_gets_its_class(found: Detections, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its constructor's arguments; without the package, one sentence with the command."""
    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=SimpleNamespace))
    theirs = found.to_supervision()
    assert theirs.xyxy.tolist() == BOXES and theirs.class_id.tolist() == [0, 1, 0]
    assert theirs.data["class_name"].tolist() == ["Schraube", "Öse", "Schraube"]
    assert theirs.confidence.tolist() == pytest.approx([0.9, 0.5, 0.1])
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'align_detr\[supervision\]'"):
        found.to_supervision()


def test_supervision_itself_takes_them(found: Detections) -> None:
    pytest.importorskip("supervision")
    theirs = found.to_supervision()
    assert len(theirs) == 3 and len(found[:0].to_supervision()) == 0
    assert theirs[theirs.confidence > 0.4].data["class_name"].tolist() == ["Schraube", "Öse"]
