"""Files of the shapes that eight labelling tools write: the classes are right and a perfect detector has AP 100.

The files are made by hand, key for key as the tools write them; tests/data/layouts/test_tools.py runs the tools. The
detections come from TRUTH, by the names of the classes, and never from the file. `unread` is the AP that COCO's own
evaluation gives the same detections on the file as it stands.
"""

import contextlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from align_detr.data import find, load_dataset
from align_detr.data.datasets import check_same_classes
from align_detr.data.register import register
from align_detr.errors import DatasetError
from align_detr.evaluation import DetectionEvaluator
from support.oracle import detections

SIZES = {"a": (200, 150), "b": (120, 160), "c": (300, 200)}
TRUTH = {
    "a": [("screw", 20, 30, 40, 50), ("bolt", 100, 40, 80, 90), ("screw", 140, 10, 10, 10)],
    "b": [],
    "c": [("bolt", 10, 20, 30, 40), ("screw", 150.5, 50.25, 100.25, 140.25)],
}
CLASSES = {"screw", "bolt"}


@dataclass(frozen=True)
class Tool:
    """How a tool writes TRUTH: photos in its order, first ids, names of files, and what else stands in the entries."""

    order: str = "abc"
    first: tuple[int, int, int] = (1, 1, 1)  # ids of images, annotations, categories
    classes: tuple[str, ...] = ("bolt", "screw")
    file_name: str = "{}.jpg"
    annotation: Callable[[int, list], dict[str, Any]] = lambda number, box: {
        "area": box[2] * box[3],
        "iscrowd": 0,
        "segmentation": [],
    }
    keys: tuple[str, ...] = ("info", "licenses")
    change: Callable[[dict[str, Any]], object] = lambda coco: None
    unread: float | None = 100.0  # None: refused

    def content(self) -> dict[str, Any]:
        """Return the content of the file."""
        image, annotation, category = self.first
        objects = [(number, *each) for number, name in enumerate(self.order) for each in TRUTH[name]]
        coco: dict[str, Any] = {key: {} if key == "info" else [] for key in self.keys}
        coco["images"] = [
            {"id": image + k, "file_name": self.file_name.format(n), "width": SIZES[n][0], "height": SIZES[n][1]}
            for k, n in enumerate(self.order)
        ]
        coco["annotations"] = [
            {
                "id": annotation + number,
                "image_id": image + photo,
                "category_id": category + self.classes.index(label),
                "bbox": list(box),
                **self.annotation(number, list(box)),
            }
            for number, (photo, label, *box) in enumerate(objects)
        ]
        coco["categories"] = [
            {"id": category + k, "name": name, "supercategory": ""} for k, name in enumerate(self.classes)
        ]
        self.change(coco)
        return coco


def plain(number: int, box: list) -> dict[str, Any]:
    return {"area": box[2] * box[3], "iscrowd": 0, "segmentation": [], "ignore": 0}


def whole_area(number: int, box: list) -> dict[str, Any]:
    return {"area": int(box[2] * box[3]), "iscrowd": 0, "segmentation": []}


def of_pylabel(number: int, box: list) -> dict[str, Any]:
    return {"area": box[2] * box[3], "iscrowd": 0.0, "segmentation": None, "truncated": "0", "difficult": None}


def numbered(ids: Sequence[int]) -> Callable[[dict[str, Any]], object]:
    return lambda coco: [a.update(id=id_) for a, id_ in zip(coco["annotations"], ids, strict=True)]


def repeat_before_the_empty_photo(coco: dict[str, Any]) -> None:
    """The annotation before a photo without objects is written again, and its number is left out."""
    coco["annotations"].insert(3, dict(coco["annotations"][2]))
    for number, annotation in enumerate(coco["annotations"][4:], start=4):
        annotation["id"] = number


def in_float32(coco: dict[str, Any]) -> None:
    for annotation in coco["annotations"]:
        annotation["bbox"] = [float(np.float32(value) + np.float32(3e-6)) for value in annotation["bbox"]]


TOOLS = {
    "supervision": Tool(order="bac", classes=("screw", "bolt"), change=in_float32),
    "datumaro from YOLO": Tool(change=numbered([2, 1, 2, 3, 1]), unread=None),
    "datumaro from CVAT": Tool(annotation=lambda n, box: {**plain(n, box), "attributes": {"occluded": False}}),
    "datumaro from subfolders": Tool(file_name="cam1/{}.jpg"),
    "globox": Tool(order="cab", first=(0, 0, 0), annotation=plain, keys=(), unread=62.6),
    "labelme2coco": Tool(
        first=(1, 1, 0), classes=("screw", "bolt"), file_name="src/labelme/{}.jpg", annotation=whole_area, keys=()
    ),
    "sahi": Tool(first=(1, 1, 5), annotation=whole_area, keys=()),
    "pylabel from VOC": Tool(order="ca", first=(1, 0, 0), annotation=of_pylabel, keys=("info",), unread=62.6),
    "pylabel from COCO": Tool(
        first=(1, 0, 1), annotation=of_pylabel, keys=("info",), change=repeat_before_the_empty_photo, unread=None
    ),
    "label-studio-sdk": Tool(first=(0, 0, 0), file_name="FOLDER/{}.jpg", annotation=plain, keys=("info",), unread=72.1),
}
every_tool = pytest.mark.parametrize("tool", TOOLS.values(), ids=[name.replace(" ", "_") for name in TOOLS])


def write(folder: Path, tool: Tool, split: str = "train") -> Path:
    """Write the photos and the file of the tool; return the file."""
    photos = folder / "images"
    coco = tool.content()
    for image, name in zip(coco["images"], tool.order, strict=True):
        image["file_name"] = image["file_name"].replace("FOLDER", str(photos.absolute()))
        path = photos / image["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZES[name], (90, 120, 150)).save(path)
    file = folder / f"{split}.json"
    file.write_text(json.dumps(coco))
    return file


@pytest.fixture
def names() -> Iterator[list[str]]:
    """Return a list for the names that a test registers."""
    registered: list[str] = []
    yield registered
    for name in registered:
        DatasetCatalog.pop(name, None)
        MetadataCatalog.pop(name, None)


def score(name: str) -> float:
    """Return the AP of a detector that finds TRUTH, on a registered data set."""
    evaluator = DetectionEvaluator(dataset_name=name)
    classes = MetadataCatalog.get(name).thing_classes
    evaluator.reset()
    for record in load_dataset(name):
        objects = TRUTH[Path(record["file_name"]).stem]
        boxes = [(x, y, x + w, y + h) for _, x, y, w, h in objects]
        found = detections(boxes, [classes.index(label) for label, *_ in objects], [0.9] * len(objects))
        evaluator.process([record], [found])
    return evaluator.evaluate()["bbox"]["AP"]


def score_unread(file: Path) -> float:
    """Return the AP of the same detections by pycocotools on the file as it is."""
    coco = json.loads(file.read_text())
    ids = {category["name"]: category["id"] for category in coco["categories"]}
    found = [
        {"image_id": image["id"], "category_id": ids[label], "bbox": box, "score": 0.9}
        for image in coco["images"]
        for label, *box in TRUTH[Path(image["file_name"]).stem]
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(file))
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return 100 * evaluation.stats[0]


@every_tool
def test_a_perfect_detector_has_ap_100(tool: Tool, tmp_path: Path, names: list[str]) -> None:
    file = write(tmp_path, tool)
    names.append("from_a_tool")
    register_coco_instances("from_a_tool", {}, str(file), str(tmp_path / "images"))
    records = load_dataset("from_a_tool")
    assert set(MetadataCatalog.get("from_a_tool").thing_classes) == CLASSES
    assert {Path(record["file_name"]).stem for record in records} == {*tool.order}
    assert sum(len(record["annotations"]) for record in records) == 5
    assert score("from_a_tool") == pytest.approx(100)
    if tool.unread is not None:
        assert score_unread(file) == pytest.approx(tool.unread, abs=0.05)
    else:
        ids = [annotation["id"] for annotation in json.loads(file.read_text())["annotations"]]
        assert len(set(ids)) < len(ids), "detectron2 refuses the file"


@every_tool
def test_the_folder_is_recognised_with_the_same_objects(tool: Tool, tmp_path: Path, names: list[str]) -> None:
    write(tmp_path, tool)
    names.append("from_a_folder")
    register("from_a_folder", find(tmp_path).split("train").annotations)
    assert score("from_a_folder") == pytest.approx(100)


def test_classes_in_order_of_sight_are_refused_for_files_and_numbered_by_name_in_a_folder(
    tmp_path: Path, names: list[str]
) -> None:
    """labelme2coco numbers the classes of every folder anew: the screw is seen first in train, the bolt in val."""
    tools = {split: Tool(classes=c) for split, c in (("train", ("screw", "bolt")), ("val", ("bolt", "screw")))}
    for split, tool in tools.items():
        names.append(f"by_sight_{split}")
        file = write(tmp_path, tool, split)
        register_coco_instances(names[-1], {}, str(file), str(tmp_path / "images"))
        load_dataset(names[-1])
    with pytest.raises(DatasetError, match="by_sight_train.*by_sight_val.*'?screw'?.*'?bolt'?"):
        check_same_classes(names)
    found = find(tmp_path)
    assert found.class_names == ["screw", "bolt"]
    common = found.with_class_names(found.class_names)
    for split in tools:
        names.append(f"by_name_{split}")
        register(names[-1], common.split(split).annotations)
        load_dataset(names[-1])
        assert MetadataCatalog.get(names[-1]).thing_classes == ["screw", "bolt"]
        assert score(names[-1]) == pytest.approx(100)


def test_slices_of_sahi_keep_their_cut_boxes(tmp_path: Path, names: list[str]) -> None:
    """Slices are PNG files; the corners of a box that is cut are whole pixels, its bbox is not."""
    (tmp_path / "images").mkdir()
    images, annotations = [], []
    for number, (x, width) in enumerate([(0, 50.5), (80, 49.75)], start=1):
        name = f"c_{x}_0_{x + 100}_100.png"
        Image.new("RGB", (100, 100)).save(tmp_path / "images" / name)
        images.append({"id": number, "file_name": name, "width": 100, "height": 100})
        corners = [[70, 50, 70 + int(width), 50, 70 + int(width), 100, 70, 100]]
        box = {"bbox": [49.5, 50, width, 50], "area": int(width * 50), "iscrowd": 0, "segmentation": corners}
        annotations.append({"id": number, "image_id": number, "category_id": 1, **box})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "screw"}]}
    (tmp_path / "train.json").write_text(json.dumps(content))
    names.append("slices")
    register_coco_instances("slices", {}, str(tmp_path / "train.json"), str(tmp_path / "images"))
    boxes = [annotation["bbox"] for record in load_dataset("slices") for annotation in record["annotations"]]
    assert boxes == [[49.5, 50, 50.5, 50], [49.5, 50, 49.75, 50]]
