"""Data sets in folders: every layout that people and tools write holds the same objects."""

import json
import logging
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from align_detr.data import find, load_dataset
from align_detr.errors import DatasetError
from support import trees

SPLIT_NAMES = {"train": "ab", "val": "c"}
NAMES = {0: "screw", 1: "bolt"}


def coco_2017(root: Path) -> None:
    for split, names in SPLIT_NAMES.items():
        trees.write_json(root / f"annotations/instances_{split}2017.json", trees.coco(names))
        trees.write_json(root / f"annotations/captions_{split}2017.json", trees.coco(names))
        trees.write_images(root / f"{split}2017", names)


def coco_beside(root: Path) -> None:
    for split, names in SPLIT_NAMES.items():
        trees.write_json(root / f"{split}.json", trees.coco(names))
        trees.write_images(root / "images", names)


def coco_datumaro(root: Path) -> None:
    for split, names in SPLIT_NAMES.items():
        trees.write_json(root / f"annotations/instances_{split}.json", trees.coco(names, prefix="cam1/"))
        trees.write_images(root / "images" / split / "cam1", names)


def coco_roboflow(root: Path) -> None:
    heading = {"id": 0, "name": "parts", "supercategory": "none"}
    for split, names in {"train": "ab", "valid": "c"}.items():
        content = trees.coco(names)
        content["categories"] = [heading, *({**c, "supercategory": "parts"} for c in content["categories"])]
        trees.write_json(root / split / "_annotations.coco.json", content)
        trees.write_images(root / split, names)
    trees.write_text(root / "README.roboflow.txt", "1 photo and some words\n")


def coco_labelme2coco(root: Path) -> None:
    """Each split converted apart numbers classes by first sight, and paths start where the tool was run."""
    for split, names in SPLIT_NAMES.items():
        classes = ("screw", "bolt") if split == "train" else ("bolt",)
        trees.write_json(root / f"{split}.json", trees.coco(names, classes=classes, prefix=f"src/labelme/{split}/"))
        trees.write_images(root / "labelme" / split, names)


def coco_absolute(root: Path) -> None:
    for split, names in SPLIT_NAMES.items():
        trees.write_images(root / "photos" / split, names)
        trees.write_json(root / f"{split}.json", trees.coco(names, prefix=f"{(root / 'photos' / split).absolute()}/"))


def coco_windows(root: Path) -> None:
    for split, names in SPLIT_NAMES.items():
        trees.write_images(root / "photos" / split, names)
        trees.write_json(root / f"{split}.json", trees.coco(names, prefix="C:\\Users\\me\\photos\\"))


def voc_devkit(root: Path) -> None:
    root = root / "VOCdevkit" / "VOC2007"
    trees.write_images(root / "JPEGImages")
    trees.write_images(root / "SegmentationClass", "a", suffix=".png")
    trees.write_xmls(root / "Annotations", database="The VOC2007 Database", shift=(1, 1, 0, 0))
    trees.write_text(root / "ImageSets/Main/train.txt", "a\nb\n")
    trees.write_text(root / "ImageSets/Main/val.txt", "c\n")
    trees.write_text(root / "ImageSets/Main/trainval.txt", "a\nb\nc\n")
    trees.write_text(root / "ImageSets/Main/bolt_train.txt", "a  1\nb -1\n")


def voc_supervision(root: Path) -> None:
    for split, names in SPLIT_NAMES.items():
        trees.write_images(root / split / "images", names)
        trees.write_xmls(root / split / "annotations", names, database="roboflow.ai", shift=(1, 1, 0, 0))


def voc_roboflow(root: Path) -> None:
    for split, names in {"train": "ab", "valid": "c"}.items():
        trees.write_images(root / split, names)
        trees.write_xmls(root / split, names, database="roboflow.com")


def voc_datumaro(root: Path) -> None:
    trees.write_images(root / "JPEGImages")
    trees.write_xmls(root / "Annotations")
    for split, names in SPLIT_NAMES.items():
        trees.write_text(root / f"ImageSets/Main/{split}.txt", "\n".join(names))
    trees.write_text(
        root / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\nscrew:1,2,3::\nbolt:::\n"
    )


def yolo_ultralytics(root: Path) -> None:
    for split, names in SPLIT_NAMES.items():
        trees.write_images(root / "images" / split, names)
        trees.write_labels(root / "labels" / split, names)
    trees.write_text(root / "data.yaml", f"path: ../datasets/x\ntrain: images/train\nval: images/val\nnames: {NAMES}\n")


def yolo_roboflow(root: Path) -> None:
    for split, names in {"train": "ab", "valid": "c"}.items():
        trees.write_images(root / split / "images", names)
        trees.write_labels(root / split / "labels", names)
    text = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\nnames: ['screw', 'bolt']\n"
    trees.write_text(root / "data.yaml", text)


def yolo_unpacked(root: Path) -> None:
    """An archive unpacks into a folder of its own."""
    yolo_roboflow(root / "parts.v1i.yolov8")


def yolo_datumaro(root: Path) -> None:
    for split, names in SPLIT_NAMES.items():
        trees.write_images(root / "images" / split, names)
        trees.write_labels(root / "labels" / split, names)
        trees.write_text(root / f"{split}.txt", "".join(f"./images/{split}/{name}.jpg\n" for name in names))
    trees.write_text(root / "data.yaml", f"train: train.txt\nval: val.txt\nnames: {NAMES}\n")


def yolo_darknet(root: Path) -> None:
    text = "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\nbackup = backup/\n"
    trees.write_text(root / "obj.data", text)
    trees.write_text(root / "obj.names", "screw\nbolt\n")
    for split, names in {"train": "ab", "valid": "c"}.items():
        trees.write_images(root / f"obj_{split}_data", names)
        trees.write_labels(root / f"obj_{split}_data", names)
        trees.write_text(root / f"{split}.txt", "".join(f"data/obj_{split}_data/{name}.jpg\n" for name in names))


def yolo_supervision(root: Path) -> None:
    """The data.yaml has names alone."""
    for split, names in SPLIT_NAMES.items():
        trees.write_images(root / split / "images", names)
        trees.write_labels(root / split / "annotations", names)
    trees.write_text(root / "data.yaml", "names:\n- screw\n- bolt\nnc: 2\n")


def yolo_text_lists(root: Path) -> None:
    for split, names in SPLIT_NAMES.items():
        trees.write_images(root / "all" / "images" / split, names)
        trees.write_labels(root / "all" / "labels" / split, names)
    text = f"train: [all/images/train]\nval: {(root / 'all/images/val').absolute()}\nnames: [screw, bolt]\n"
    trees.write_text(root / "things.yaml", text)


BUILDERS = [value for name, value in list(globals().items()) if name.startswith(("coco_", "voc_", "yolo_"))]


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_every_layout_holds_the_same_objects(tmp_path, build):
    """Splits, photos with and without objects, sizes, boxes and class names come out alike from every layout."""
    build(tmp_path)
    found = find(tmp_path)
    assert found.layout == build.__name__.split("_")[0]
    assert list(found.splits) == ["train", "val"]
    assert sorted(found.class_names) == ["bolt", "screw"]
    for split, names in SPLIT_NAMES.items():
        annotations = found.splits[split].annotations
        assert trees.table(annotations) == trees.expected(names)
        assert trees.images_exist(annotations)


def coco_alone(root: Path) -> None:
    trees.write_json(root / "result.json", trees.coco(prefix="images/"))
    trees.write_images(root / "images")


def coco_globox(root: Path) -> None:
    """Categories count from 0."""
    content = trees.coco(classes=("bolt", "screw"))
    for each, key in [
        *((c, "id") for c in content["categories"]),
        *((a, "category_id") for a in content["annotations"]),
    ]:
        each[key] -= 1
    trees.write_json(root / "coco.json", content)
    trees.write_images(root)


def voc_labelimg(root: Path) -> None:
    trees.write_images(root)
    trees.write_xmls(root, "ac")  # labelImg writes no file for a photo without boxes


def voc_label_studio(root: Path) -> None:
    trees.write_images(root / "images")
    trees.write_xmls(root / "Annotations", database="MyDatabase")


def yolo_labelimg(root: Path) -> None:
    trees.write_images(root)
    trees.write_labels(root)
    trees.write_text(root / "classes.txt", "screw\nbolt\n")


def yolo_label_studio(root: Path) -> None:
    trees.write_images(root / "images")
    trees.write_labels(root / "labels", "ac")
    trees.write_text(root / "classes.txt", "screw\nbolt\n")
    trees.write_json(root / "notes.json", {"categories": [{"id": 0, "name": "screw"}], "info": {}})


def yolo_pylabel(root: Path) -> None:
    """Validation is the training set once more."""
    trees.write_images(root / "images")
    trees.write_labels(root / "labels")
    text = "path: ../training\ntrain: images\nval: images\nnc: 2\nnames: [screw, bolt]\n"
    trees.write_text(root / "dataset.yaml", text)


ONE_SPLIT = [
    coco_alone, coco_globox, voc_labelimg, voc_label_studio, yolo_labelimg, yolo_label_studio, yolo_pylabel,
]  # fmt: skip


@pytest.mark.parametrize("build", ONE_SPLIT, ids=lambda build: build.__name__)
def test_a_data_set_without_splits_is_all_train_and_divided_by_seed(tmp_path, build):
    """The photos that the seed holds out are no photos of the training set, and none is lost."""
    build(tmp_path)
    found = find(tmp_path)
    assert (found.layout, list(found.splits)) == (build.__name__.split("_")[0], ["train"])
    assert trees.table(found.splits["train"].annotations) == trees.expected()
    assert trees.images_exist(found.splits["train"].annotations)
    divided = [find(tmp_path).with_validation(fraction=0.2, seed=3) for _ in range(2)]
    train, val = (divided[0].splits[name].annotations for name in ("train", "val"))
    assert (len(train.images), len(val.images)) == (2, 1)
    assert {**trees.table(train), **trees.table(val)} == trees.expected()
    assert divided[1].splits["val"].annotations == val


def test_a_coco_file_and_a_data_yaml_stand_for_their_data_set(tmp_path):
    """The file itself can be given instead of its folder."""
    coco_alone(tmp_path / "c")
    yolo_ultralytics(tmp_path / "y")
    assert trees.table(find(tmp_path / "c/result.json").splits["train"].annotations) == trees.expected()
    assert list(find(tmp_path / "y/data.yaml").splits) == ["train", "val"]


def test_annotations_are_read_when_they_are_asked_for(tmp_path):
    """A split that is broken hinders no other."""
    yolo_ultralytics(tmp_path)
    (tmp_path / "labels/val/c.txt").write_text("0 0.5 nonsense\n")
    found = find(tmp_path)
    assert trees.table(found.splits["train"].annotations) == trees.expected("ab")
    with pytest.raises(DatasetError, match=r"c.txt, line 1, is '0 0.5 nonsense'"):
        _ = found.splits["val"].annotations


def test_a_folder_with_two_layouts_asks_which(tmp_path):
    """The sentence names what was found and the option; `layout` decides."""
    coco_beside(tmp_path)
    yolo_ultralytics(tmp_path)
    with pytest.raises(
        DatasetError, match=r"several layouts, coco \(train in train.json.*--layout coco or --layout yolo"
    ):
        find(tmp_path)
    assert find(tmp_path, layout="yolo").layout == "yolo"


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"notes.md": ""}, r"holds no known data set \(it has notes.md\): use one of"),
        (
            {"a.json": trees.coco("a"), "b.json": trees.coco("c")},
            "two COCO files for train, a.json and b.json: pass one",
        ),
        ({"data.yaml": "names: [a]", "voc.yaml": "names: [b]"}, "holds data.yaml and voc.yaml: pass one of them"),
        ({"data.yaml": "names: [a]\ntrain: nowhere"}, "has train: nowhere, where there are no images"),
        ({"data.yaml": "names: [a\ntrain: x"}, "data.yaml cannot be read"),
        ({"data.yaml": "names: [a]\nnc: 2\ntrain: x"}, "has nc: 2, but 1 names"),
        ({"data.yaml": "names: list.txt\ntrain: x"}, "has names: list.txt, a file that does not exist"),
    ],
)
def test_a_folder_that_cannot_be_used_is_told_in_one_sentence(tmp_path, files, sentence):
    """The sentence names the file and the remedy."""
    for name, content in files.items():
        trees.write_text(tmp_path / name, content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DatasetError, match=sentence):
        find(tmp_path)
    with pytest.raises(DatasetError, match="does not exist: pass the folder of a data set"):
        find(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="There is no layout 'pascal': use one of coco, voc, yolo"):
        find(tmp_path, layout="pascal")


def test_a_file_that_is_no_data_set_is_told(tmp_path):
    """An archive has to be unpacked."""
    (tmp_path / "parts.zip").write_bytes(b"PK")
    with pytest.raises(DatasetError, match="parts.zip is neither a COCO JSON file nor a data.yaml"):
        find(tmp_path / "parts.zip")
    with pytest.raises(
        DatasetError, match=r"holds no data set in the layout 'voc': it wants XML files in Annotations/"
    ):
        find(tmp_path, layout="voc")


def test_classes_of_splits_converted_apart_get_common_numbers(tmp_path):
    """labelme2coco numbers classes by first sight: the same name has the same number in both splits afterwards."""
    for split, classes in (("train", ("screw", "bolt")), ("val", ("bolt", "screw"))):
        trees.write_json(tmp_path / f"{split}.json", trees.coco("ac", classes=classes))
    trees.write_images(tmp_path, "ac")
    found = find(tmp_path)
    assert found.class_names == ["screw", "bolt"]
    for split in found.with_class_names(found.class_names).splits.values():
        assert split.annotations.class_names == ["screw", "bolt"]
        assert trees.table(split.annotations) == trees.expected("ac")
    with pytest.raises(DatasetError, match="val.json has objects of the class 'bolt', but the classes are screw, nut"):
        _ = found.with_class_names(["screw", "nut"]).splits["val"].annotations


def test_the_heading_that_roboflow_writes_is_no_class(tmp_path):
    """Category 0 without objects, above all others, goes; with an object it is a class like any other."""
    coco_roboflow(tmp_path)
    assert find(tmp_path).class_names == ["screw", "bolt"]
    path = tmp_path / "valid/_annotations.coco.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["category_id"] = 0
    path.write_text(json.dumps(content))
    assert find(tmp_path).class_names == ["parts", "screw", "bolt"]


def test_copies_of_one_photo_stay_on_one_side_of_the_division(tmp_path):
    """Roboflow's augmented copies differ in what follows .rf. only."""
    names = [f"{photo}_jpg.rf.{copy}" for photo in "pqrs" for copy in "012"]
    images = [{"id": k, "file_name": f"{name}.jpg", "width": 8, "height": 8} for k, name in enumerate(names, start=1)]
    trees.write_json(
        tmp_path / "all.json", {"images": images, "annotations": [], "categories": [{"id": 1, "name": "x"}]}
    )
    Image.new("RGB", (8, 8)).save(tmp_path / f"{names[0]}.jpg")
    divided = find(tmp_path).with_validation(fraction=0.5, seed=0).splits
    sides = [{image["file_name"][0] for image in split.annotations.images} for split in divided.values()]
    assert [len(side) for side in sides] == [2, 2]
    assert not sides[0] & sides[1]
    with pytest.raises(DatasetError, match="fraction between 0 and 1 of the images, not 1.5"):
        _ = find(tmp_path).with_validation(fraction=1.5, seed=0).splits["val"].annotations


def test_a_registered_folder_loads_with_common_classes_and_says_what_was_repaired(tmp_path, caplog):
    """globox counts annotations from 0, which is repaired and logged; classes count from 0 in detectron2's records."""
    content = trees.coco()
    for annotation in content["annotations"]:
        annotation["id"] -= 1
    trees.write_json(tmp_path / "coco.json", content)
    trees.write_images(tmp_path)
    names = find(tmp_path).with_class_names(["nut", "bolt", "screw"]).register("parts")
    assert names == ["parts_train"]
    with caplog.at_level(logging.WARNING):
        records = load_dataset("parts_train")
    assert "coco.json, annotation 0" in caplog.text
    assert [[each["category_id"] for each in record["annotations"]] for record in records] == [[2, 1, 2], [], [1]]
    assert MetadataCatalog.get("parts_train").thing_classes == ["nut", "bolt", "screw"]
    DatasetCatalog.remove("parts_train")
    MetadataCatalog.remove("parts_train")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("images", ["a.jpg"]),
        ("images", [{"id": 1}]),
        ("images", []),
        ("images", [{"file_name": "a.jpg", "width": 200, "height": 150}] * 2),
        ("categories", ["screw"]),
        ("categories", [{"id": 1}]),
        ("annotations", [{"id": 1}, 5]),
    ],
)
def test_a_coco_file_of_another_form_is_told_in_one_sentence(tmp_path, key, value):
    """Whatever is asked of the data set first: its classes, or a validation split."""
    trees.write_json(tmp_path / "coco.json", {**trees.coco(), key: value})
    trees.write_images(tmp_path)
    with pytest.raises(DatasetError, match="coco.json"):
        _ = find(tmp_path).class_names
    with pytest.raises(DatasetError, match="coco.json"):
        _ = find(tmp_path).with_validation(fraction=0.5, seed=0).splits["val"].annotations
