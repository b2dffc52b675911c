"""Files that labelling tools write themselves, for whoever has them installed: `find` reads them from their folder.

Boxes may differ from the source by a pixel where a tool writes whole numbers.
"""

import json
from pathlib import Path

import pytest
from PIL import Image

from align_detr.data import find, load_dataset
from align_detr.evaluation import DetectionEvaluator
from support import trees
from support.oracle import detections


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """Return a YOLO data set of three photos."""
    root = tmp_path / "source"
    trees.write_images(root / "images" / "train")
    trees.write_labels(root / "labels" / "train")
    trees.write_text(
        root / "data.yaml", "path: .\ntrain: images/train\nval: images/train\nnames: {0: screw, 1: bolt}\n"
    )
    return root


def check(folder: Path, layout: str, *, names: str = "abc", within: float = 0.01) -> None:
    """Fail unless the folder's only split has the photos `names` and their classes and boxes, these within pixels."""
    found = find(folder)
    assert (found.layout, list(found.splits)) == (layout, ["train"])
    annotations = found.splits["train"].annotations
    table = trees.table(annotations)
    assert sorted(table) == sorted(names)
    assert trees.images_exist(annotations)
    for name in names:
        rows, expected = sorted(table[name]), sorted(trees.OBJECTS[name])
        assert [row[0] for row in rows] == [row[0] for row in expected]
        for row, wanted in zip(rows, expected, strict=True):
            assert row[1:] == pytest.approx(wanted[1:], abs=within)
    ap = average_precision(folder)
    assert ap == pytest.approx(100) if within < 1 else ap > 90


def average_precision(folder: Path) -> float:
    """Return the AP, in the folder's data set as it is registered, of a detector that finds what the photos hold."""
    found = find(folder)
    (name,) = found.with_class_names(found.class_names).register("tool")
    evaluator = DetectionEvaluator(dataset_name=name)
    evaluator.reset()
    for record in load_dataset(name):
        objects = trees.OBJECTS[Path(record["file_name"]).stem]
        boxes = [(x, y, x + w, y + h) for _, x, y, w, h in objects]
        classes = [found.class_names.index(label) for label, *_ in objects]
        evaluator.process([record], [detections(boxes, classes, [0.9] * len(objects))])
    return evaluator.evaluate()["bbox"]["AP"]


@pytest.mark.parametrize("layout", ["coco", "voc", "yolo"])
def test_supervision(yolo, tmp_path, layout):
    """It writes what it read as YOLO, COCO and Pascal VOC, with one pixel added to xmin and ymin there."""
    sv = pytest.importorskip("supervision")
    dataset = sv.DetectionDataset.from_yolo(
        str(yolo / "images/train"), str(yolo / "labels/train"), str(yolo / "data.yaml")
    )
    images, out = str(tmp_path / "out/images"), tmp_path / "out"
    if layout == "coco":
        dataset.as_coco(images, str(out / "annotations.json"))
    elif layout == "voc":
        dataset.as_pascal_voc(images, str(out / "annotations"))
    else:
        dataset.as_yolo(images, str(out / "labels"), str(out / "data.yaml"))
    check(out, layout)


@pytest.mark.parametrize(
    ("format_name", "layout"),
    [("coco_instances", "coco"), ("voc_detection", "voc"), ("yolo", "yolo")],
)
def test_datumaro(yolo, tmp_path, format_name, layout):
    """Annotation ids repeat in its COCO files from YOLO, which carries no meaning."""
    datumaro = pytest.importorskip("datumaro")
    dataset = datumaro.Dataset.import_from(str(yolo), "yolo")
    dataset.export(str(tmp_path / "out"), format_name, save_media=True)
    check(tmp_path / "out", layout)


def test_datumaro_for_ultralytics(yolo, tmp_path):
    """It wants a validation split, and lists the images of each in a text file."""
    datumaro = pytest.importorskip("datumaro")
    trees.write_images(yolo / "images/val", "c")
    trees.write_labels(yolo / "labels/val", "c")
    dataset = datumaro.Dataset.import_from(str(yolo), "yolo")
    dataset.export(str(tmp_path / "out"), "yolo_ultralytics", save_media=True)
    splits = find(tmp_path / "out").splits
    assert {name: sorted(trees.table(split.annotations)) for name, split in splits.items()} == {
        "train": ["a", "b", "c"],
        "val": ["c"],
    }


@pytest.mark.parametrize("layout", ["coco", "voc", "yolo"])
def test_globox(yolo, tmp_path, layout):
    """It writes annotations alone: the images are copied beside them."""
    globox = pytest.importorskip("globox")
    annotations = globox.AnnotationSet.from_yolo_v5(yolo / "labels/train", image_folder=yolo / "images/train")
    annotations.map_labels({"0": "screw", "1": "bolt"})
    out = tmp_path / "out"
    trees.write_images(out)
    if layout == "coco":
        annotations.save_coco(out / "coco.json", auto_ids=True)
    elif layout == "voc":
        annotations.save_pascal_voc(out)
    else:
        annotations.save_yolo_v5(out, label_to_id={"screw": 0, "bolt": 1})
        trees.write_text(out / "classes.txt", "screw\nbolt\n")
    check(out, layout)


def test_labelme2coco(tmp_path, monkeypatch):
    """File names start where the tool was run."""
    tool = pytest.importorskip("labelme2coco")
    monkeypatch.chdir(tmp_path)
    trees.write_images(tmp_path / "src/labelme")
    for name, (width, height) in trees.SIZES.items():
        shapes = [
            {
                "label": label,
                "points": [[x, y], [x + w, y + h]],
                "shape_type": "rectangle",
                "group_id": None,
                "flags": {},
            }
            for label, x, y, w, h in trees.OBJECTS[name]
        ]
        content = {"version": "5.0.1", "flags": {}, "shapes": shapes, "imagePath": f"{name}.jpg", "imageData": None}
        content.update(imageHeight=height, imageWidth=width)
        trees.write_json(tmp_path / "src/labelme" / f"{name}.json", content)
    tool.convert("src/labelme", "out")
    check(tmp_path, "coco")


def test_sahi_slices(tmp_path):
    """Every slice is a photo of its own, in the folder of the JSON file."""
    slicing = pytest.importorskip("sahi.slicing")
    trees.write_images(tmp_path / "images")
    trees.write_json(tmp_path / "source.json", trees.coco())
    slicing.slice_coco(
        str(tmp_path / "source.json"), str(tmp_path / "images"), "sliced", output_dir=str(tmp_path / "out"),
        slice_height=100, slice_width=100, overlap_height_ratio=0.2, overlap_width_ratio=0.2,
    )  # fmt: skip
    annotations = find(tmp_path / "out").splits["train"].annotations
    assert len(annotations.images) == len(json.loads(next((tmp_path / "out").glob("*.json")).read_text())["images"]) > 3
    assert trees.images_exist(annotations)


@pytest.mark.parametrize("layout", ["voc", "yolo", "coco"])
def test_pylabel(tmp_path, layout):
    """It drops photos without objects."""
    pylabel = pytest.importorskip("pylabel.importer")
    source = tmp_path / "source"
    trees.write_images(source / "images", "ac")
    trees.write_xmls(source / "annotations", "ac")
    dataset = pylabel.ImportVOC(path=str(source / "annotations"), path_to_images="../images", name="parts")
    out = tmp_path / "out"
    if layout == "yolo":
        dataset.export.ExportToYoloV5(output_path=str(out / "labels"), copy_images=True, yaml_file="dataset.yaml")
        check(out, "yolo", names="ac")
        return
    trees.write_images(out / "images", "ac")
    if layout == "voc":
        (out / "annotations").mkdir(parents=True)
        dataset.export.ExportToVoc(output_path=str(out / "annotations"))
    else:
        dataset.export.ExportToCoco(output_path=str(out / "coco.json"))
    check(out, layout, names="ac")


@pytest.mark.parametrize("layout", ["coco", "voc", "yolo"])
def test_label_studio(tmp_path, layout):
    """Boxes in per cent become whole pixels in Pascal VOC."""
    converter = pytest.importorskip("label_studio_sdk.converter")
    labels = (
        '<RectangleLabels name="label" toName="image"><Label value="screw"/><Label value="bolt"/></RectangleLabels>'
    )
    config = f'<View><Image name="image" value="$image"/>{labels}</View>'
    trees.write_images(tmp_path / "photos")
    tasks = [_label_studio_task(number, name, tmp_path / "photos") for number, name in enumerate("abc", start=1)]
    trees.write_json(tmp_path / "tasks.json", tasks)
    tool = converter.Converter(config=config, project_dir=str(tmp_path), download_resources=True)
    source, out = str(tmp_path / "tasks.json"), tmp_path / "out"
    out.mkdir()
    if layout == "coco":
        tool.convert_to_coco(source, str(out), output_image_dir=str(out / "images"), is_dir=False)
    elif layout == "voc":
        tool.convert_to_voc(source, str(out), output_image_dir=str(out / "images"), is_dir=False)
    else:
        tool.convert_to_yolo(source, str(out), output_image_dir=str(out / "images"), is_dir=False)
    for name in trees.SIZES:
        path = out / "images" / f"{name}.jpg"
        if not path.is_file():  # not every version copies local files
            path.parent.mkdir(exist_ok=True)
            Image.open(tmp_path / "photos" / path.name).save(path)
    check(out, layout, within=1)


def _label_studio_task(number: int, name: str, photos: Path) -> dict:
    """Return a task with its annotation, as the tool's JSON export has it."""
    width, height = trees.SIZES[name]
    results = [
        {
            "id": f"{name}{k}", "type": "rectanglelabels", "from_name": "label", "to_name": "image",
            "original_width": width, "original_height": height, "image_rotation": 0,
            "value": {
                "x": 100 * x / width, "y": 100 * y / height, "width": 100 * w / width, "height": 100 * h / height,
                "rotation": 0, "rectanglelabels": [label],
            },
        }
        for k, (label, x, y, w, h) in enumerate(trees.OBJECTS[name])
    ]  # fmt: skip
    annotation = {"id": number, "result": results, "was_cancelled": False, "completed_by": 1}
    return {
        "id": number,
        "data": {"image": str(photos / f"{name}.jpg")},
        "annotations": [annotation],
        "predictions": [],
    }
