"""Conversion between layouts: there and back, nothing is lost that the layouts have a place for."""

import json
import logging

import numpy as np
import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog

from align_detr.cli.main import main
from align_detr.data.annotations import Annotations
from align_detr.data.convert import WRITERS, convert
from align_detr.data.layouts.copying import image_bytes, new_file
from align_detr.errors import DatasetError
from support import trees
from support.datasets import forgotten


@pytest.fixture
def source(tmp_path):
    """Return a COCO data set: classes in no alphabetical order, a photo without objects, boxes between the pixels."""
    root = tmp_path / "source"
    for split, names in {"train": "ab", "val": "c"}.items():
        content = trees.coco(names)
        for annotation in content["annotations"]:
            annotation["bbox"][0] += 0.3125
        trees.write_json(root / f"annotations/instances_{split}.json", content)
        trees.write_images(root / "images" / split, names)
    return root


@pytest.mark.parametrize("layout", list(WRITERS))
def test_a_round_trip_keeps_everything(tmp_path, source, layout):
    """COCO to another layout and back: splits, photos, their bytes, classes in order, boxes within 0.0001 pixel."""
    there = convert(source, to=layout, out=tmp_path / "there")
    back = convert(tmp_path / "there", to="coco", out=tmp_path / "back")
    assert there.layout == layout
    for found in (there, back):
        assert list(found.splits) == ["train", "val"]
        assert found.class_names == ["screw", "bolt"]
        for split, names in {"train": "ab", "val": "c"}.items():
            annotations = found.splits[split].annotations
            moved = {name: [(c, x + 0.3125, *rest) for c, x, *rest in trees.OBJECTS[name]] for name in names}
            assert trees.table(annotations, digits=4) == moved
            for image in annotations.images:
                name = image["file_name"].rpartition("/")[2]
                assert image_bytes(annotations, image) == (source / "images" / split / name).read_bytes()


def test_a_registered_data_set_is_converted_by_its_name(tmp_path, source, capsys):
    """From the records of its function, which may hold arrays and pycocotools' bytes; the split is in the name."""
    mask = {"size": [150, 200], "counts": b"0`0"}
    annotation = {"bbox": np.array([1.5, 2, 7, 9]), "bbox_mode": 0, "category_id": np.int64(0), "segmentation": mask}
    annotation["keypoints"] = [3.5, 4.5, 2]
    photo = str(source / "images/train/a.jpg")
    record = {"file_name": photo, "width": 200, "height": 150, "image_id": 5, "annotations": [annotation]}
    with forgotten("my_val"):
        DatasetCatalog.register("my_val", lambda: [record])
        MetadataCatalog.get("my_val").set(thing_classes=["cell"])
        assert main(["convert", "my_val", "--to", "coco", "--out", str(tmp_path / "new")]) == 0
    assert "val: 1 images, 1 objects" in capsys.readouterr().out
    content = json.loads((tmp_path / "new/annotations/instances_val.json").read_text())
    (image,), (found,) = content["images"], content["annotations"]
    assert image == {"id": 5, "file_name": "a.jpg", "width": 200, "height": 150}
    assert (found["bbox"], found["keypoints"]) == ([1.5, 2, 5.5, 7], [3, 4, 2])
    assert found["segmentation"] == {"size": [150, 200], "counts": "0`0"}
    assert (tmp_path / "new/images/val/a.jpg").read_bytes() == (source / "images/train/a.jpg").read_bytes()


def test_crowd_regions_become_difficult_objects_and_back(tmp_path, source):
    """VOC's evaluation does not count difficult objects, as COCO's does not count crowd regions."""
    path = source / "annotations/instances_train.json"
    content = json.loads(path.read_text())
    content["annotations"][1]["iscrowd"] = 1
    path.write_text(json.dumps(content))
    convert(source, to="voc", out=tmp_path / "voc")
    back = convert(tmp_path / "voc", to="coco", out=tmp_path / "back")
    assert [each["iscrowd"] for each in back.splits["train"].annotations.annotations] == [0, 1, 0]


def test_what_yolo_has_no_place_for_is_counted(tmp_path, source, caplog):
    """Crowd regions and boxes outside the image are left out, and a box that sticks out is cut at the edge."""
    path = source / "annotations/instances_train.json"
    content = json.loads(path.read_text())
    for index, change in enumerate([{"iscrowd": 1}, {"bbox": [150, 100, 100, 50]}, {"bbox": [300, 0, 10, 10]}]):
        content["annotations"][index].update(change)
    path.write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        found = convert(source, to="yolo", out=tmp_path / "yolo")
    assert "1 crowd regions and 1 boxes outside their image, which are left out" in caplog.text
    assert trees.table(found.splits["train"].annotations) == {"a": [("bolt", 150, 100, 50, 50)], "b": []}


def test_photos_of_one_name_stay_apart(tmp_path):
    """Two cameras and two splits may use a name twice; labels of a.jpg and a.png would be one file."""
    root = tmp_path / "source"
    trees.write_images(root / "train" / "cam1", "a")
    trees.write_images(root / "train" / "cam2", "a")
    trees.write_images(root / "train" / "cam2", "a", suffix=".png")
    trees.write_images(root / "val" / "cam1", "a")
    files = ["cam1/a.jpg", "cam2/a.jpg", "cam2/a.png"]
    for split, names in {"train": files, "val": files[:1]}.items():
        content = trees.coco("a" * len(names))
        for image, name in zip(content["images"], names, strict=True):
            image["file_name"] = name
        trees.write_json(root / f"{split}.json", content)
    found = convert(root, to="voc", out=tmp_path / "voc")
    names = [image["file_name"] for split in found.splits.values() for image in split.annotations.images]
    expected = ["cam1/a.jpg", "cam2/a.jpg", "cam2/a_2.png", "cam1/a_2.jpg"]
    assert names == [f"JPEGImages/{name}" for name in expected]
    assert [len(split.annotations.annotations) for split in found.splits.values()] == [9, 3]


def test_conversion_can_divide_off_a_validation_split(tmp_path, source):
    """Readers of YOLO want one."""
    (source / "annotations/instances_val.json").unlink()
    found = convert(source, to="yolo", out=tmp_path / "yolo", val_fraction=0.5, split_seed=1)
    assert [len(split.annotations.images) for split in found.splits.values()] == [1, 1]
    content = yaml.safe_load((tmp_path / "yolo/data.yaml").read_text())
    assert content == {"train": "images/train", "val": "images/val", "names": {0: "screw", 1: "bolt"}}


def test_files_are_never_overwritten(tmp_path, source):
    """A folder with files in it, an unknown layout and a missing photo are told in one sentence."""
    trees.write_text(tmp_path / "full/a.txt", "")
    with pytest.raises(DatasetError, match="full holds files already: name a new folder, or empty it"):
        convert(source, to="yolo", out=tmp_path / "full")
    with pytest.raises(DatasetError, match="There is no layout 'csv': use one of coco, voc, yolo"):
        convert(source, to="csv", out=tmp_path / "x")
    (source / "images/train/b.jpg").unlink()
    with pytest.raises(DatasetError, match=r"The image file .*b.jpg \(.*instances_train.json\) does not exist"):
        convert(source, to="voc", out=tmp_path / "y")
    assert {path.name for path in tmp_path.iterdir()} == {"source", "full"}


@pytest.mark.parametrize("out", ["source", "source/new", "source/images/new/of/it", ".", "other/../source/new"])
def test_source_and_new_folder_are_apart(tmp_path, source, out):
    """Below its source, a copy would be found with it when the source is read again."""
    before = set(tmp_path.rglob("*"))
    with pytest.raises(DatasetError, match="overlap: name a new folder apart from it"):
        convert(source, to="yolo", out=tmp_path / out)
    assert set(tmp_path.rglob("*")) == before


def test_a_conversion_that_fails_leaves_nothing(tmp_path, source):
    """The last photo is missing: an empty folder stays empty, and no folder is made, nor those above it."""
    (source / "images/val/c.jpg").unlink()
    (tmp_path / "empty").mkdir()
    before = set(tmp_path.rglob("*"))
    for out in ("empty", "new", "deep/er/new"):
        with pytest.raises(DatasetError, match="c.jpg .* does not exist"):
            convert(source, to="yolo", out=tmp_path / out)
        assert set(tmp_path.rglob("*")) == before
    trees.write_images(source / "images/val", "c")
    for out in ("empty", "new", "deep/er/new"):
        assert list(convert(source, to="yolo", out=tmp_path / out).splits) == ["train", "val"]
        names = {path.name for path in (tmp_path / out).iterdir()}
        assert names == {"images", "labels", "data.yaml"}
        assert (tmp_path / out).stat().st_mode == (source / "images").stat().st_mode


@pytest.mark.parametrize("command", ["convert --to voc --out", "validate --no-images --fix", "validate --json"])
def test_what_cannot_be_written_is_one_sentence(tmp_path, source, command, capsys):
    """A file stands where a folder would have to be."""
    (tmp_path / "file").touch()
    name, *options = command.split()
    assert main([name, str(source), *options, str(tmp_path / "file/new")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"align-detr {name}: ")
    assert f"{tmp_path / 'file/new'} cannot be written (" in error


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("a\tb", {"voc", "yolo"}),
        ("a\nb", {"voc", "yolo"}),
        ("a\u2028b", {"voc", "yolo"}),
        (" a", {"voc", "yolo"}),
        ("a ", {"voc", "yolo"}),
        ("a\ud800", set(WRITERS)),
        ("a 'b' <c> & \U0001f529: #?", set()),
    ],
)
def test_a_class_is_kept_or_refused(tmp_path, source, name, refused):
    """What a layout would lose or change is refused before a file is written; all else comes back as it was."""
    for split in ("train", "val"):
        path = source / f"annotations/instances_{split}.json"
        content = json.loads(path.read_text())
        content["categories"][0]["name"] = name
        path.write_text(json.dumps(content))
    for layout in WRITERS:
        out = tmp_path / layout
        if layout in refused:
            with pytest.raises(DatasetError) as error:
                convert(source, to=layout, out=out)
            assert f"has the class {name!r}, whose name the layout '{layout}' cannot hold" in str(error.value)
            assert not out.exists()
        else:
            assert convert(source, to=layout, out=out).class_names == [name, "bolt"]


@pytest.mark.parametrize("layout", ["coco", "voc", "yolo"])
@pytest.mark.parametrize("folders", ["cam/../../../..", "..", "cam/./..", "{root}"])
def test_no_file_name_leads_out_of_the_new_folder(tmp_path, layout, folders):
    """The folders of a name with "..", or of a full path, are left out; everything that is new is below the folder."""
    (tmp_path / "1/2/3/cam").mkdir(parents=True)
    root = tmp_path / "1/2/3"
    content = trees.coco("a")
    content["images"][0]["file_name"] = name = f"{folders.format(root=root)}/a.jpg"
    trees.write_images((root / name).resolve().parent, "a")
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    annotations = Annotations(**content, image_root=root, source=root / "a.json")
    WRITERS[layout]({"train": annotations}, root / "out/new")
    added = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert all(path.is_relative_to(root / "out/new") for path in added)
    (copy,) = (path for path in added if path.suffix == ".jpg")
    assert copy.parent.name in {"train", "JPEGImages"}


@pytest.mark.parametrize("name", ["../a.jpg", "cam/../../a.jpg", "/a.jpg"])
def test_a_new_file_is_below_its_folder(tmp_path, name):
    """Nothing is made for a name that leads elsewhere."""
    with pytest.raises(DatasetError, match="would be written outside .*: rename it in the annotations"):
        new_file(tmp_path / "new", name)
    assert not list(tmp_path.iterdir())
