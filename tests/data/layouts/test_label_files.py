"""Single files of Pascal VOC and YOLO: what they mean, and what is wrong with them in one sentence."""

import json
import logging
from pathlib import Path

import pytest
from PIL import Image

from align_detr.data import DetrMapper, find
from align_detr.data.layouts.images import image_size
from align_detr.data.layouts.voc_xml import read_xml
from align_detr.data.layouts.yolo_labels import read_labels
from align_detr.data.problems import require_sound
from align_detr.data.records import to_records
from align_detr.errors import DatasetError
from align_detr.image_files import files_below
from support import trees


def xml_file(folder: Path, *, name: str = "x", box: str = "", size: str = "", head: str = "") -> Path:
    """Write an XML file with one object."""
    path = folder / "a.xml"
    text = f"<annotation>{head}{size}<object><name>{name}</name><bndbox>{box}</bndbox></object></annotation>"
    trees.write_text(path, text)
    return path


def edges(*values: object) -> str:
    return "".join(f"<{tag}>{v}</{tag}>" for tag, v in zip(("xmin", "ymin", "xmax", "ymax"), values, strict=True))


@pytest.mark.parametrize(
    ("head", "box"),
    [
        ("<source><database>The VOC2007 Database</database></source>", (0, 0, 200, 150)),
        ("<folder>VOC2012</folder>", (0, 0, 200, 150)),
        ("<source><database>roboflow.ai</database></source>", (0, 0, 200, 150)),
        ("<source><database>Unknown</database></source>", (1, 1, 199, 149)),
        ("<folder>VOC</folder><source><database>roboflow.com</database></source>", (1, 1, 199, 149)),
        ("", (1, 1, 199, 149)),
    ],
)
def test_one_is_taken_off_in_the_devkits_files_alone(tmp_path, head, box):
    """xmin 1 to xmax 200 covers an image of width 200 in the devkit's files, and 199 pixels in other tools' files."""
    assert read_xml(xml_file(tmp_path, head=head, box=edges(1, 1, 200, 150))).objects[0].box == box


def test_numbers_of_an_xml_file_may_have_fractions_and_spaces(tmp_path):
    """Tools write 20.5 and line breaks; a size of 0 is none."""
    size = "<size><width>0</width><height>0</height></size>"
    content = read_xml(xml_file(tmp_path, name="\n a b \n", box=edges(" 1.5 ", "2", 3.25, 4), size=size))
    assert (content.size, content.objects[0].name, content.objects[0].box) == (None, "a b", (1.5, 2.0, 1.75, 2.0))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"name": " ", "box": edges(1, 1, 2, 2)}, r"a.xml, object 1 has no <name>: complete or remove it"),
        ({"box": edges(1, "one", 2, 2)}, r"a.xml, object 1 has no <bndbox> of four numbers"),
        ({"box": "<xmin>1</xmin>"}, r"object 1 has no <bndbox> of four numbers \(it has \['1', None, None, None\]\)"),
        ({"box": edges(1, 1, "nan", 2)}, r"object 1 has a box that is not finite"),
        ({"box": "<xmin>"}, r"a.xml is not well-formed XML"),
    ],
)
def test_a_fault_in_an_xml_file_names_the_object(tmp_path, options, sentence):
    """File, object and remedy stand in the sentence."""
    with pytest.raises(DatasetError, match=sentence):
        read_xml(xml_file(tmp_path, **options))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("0 0.5 0.5 0.1", "has 3 numbers behind the class, but a line is"),
        ("0 0.5 0.5 0.1 0.1 0.9", r"has 5 numbers behind the class \(a fifth is a score"),
        ("zero 0.5 0.5 0.1 0.1", "is 'zero 0.5 0.5 0.1 0.1', but a line is"),
        ("0 0.5 nan 0.1 0.1", "has a number that is not finite"),
        ("-1 0.5 0.5 0.1 0.1", "has class -1, but classes count from 0"),
        ("1.5 0.5 0.5 0.1 0.1", "has class 1.5, but classes count from 0"),
        ("0 100 75 40 50", "has coordinates beyond the image, as if in pixels"),
        ("0 0.1 0.1 0.2 0.1 0.2 0.3 0.4", "has 7 numbers behind the class"),
    ],
)
def test_a_fault_in_a_label_file_names_the_line(tmp_path, line, sentence):
    """File, line and remedy stand in the sentence; empty lines count."""
    path = tmp_path / "a.txt"
    path.write_text(f"0 0.5 0.5 0.1 0.1\n\n{line}\n")
    with pytest.raises(DatasetError, match=rf"a.txt, line 3, {sentence}"):
        read_labels(path, (200, 100))


def test_polygons_and_key_points_give_boxes(tmp_path):
    """A polygon's box is the smallest around it; key points behind a box are left out."""
    path = tmp_path / "a.txt"
    path.write_text("2.0 0.1 0.2 0.3 0.2 0.2 0.6\n")
    (found,) = read_labels(path, (200, 100))
    assert (found.label, found.box) == (2, pytest.approx((20, 20, 40, 40)))
    assert found.polygon == pytest.approx([20, 20, 60, 20, 40, 60])
    path.write_text("0 0.5 0.5 0.2 0.4 0.1 0.1 2 0.9 0.9 1\n")
    (found,) = read_labels(path, (200, 100), keypoints=True)
    assert (found.box, found.polygon) == (pytest.approx((80, 30, 40, 40)), None)


def test_a_turned_photo_has_the_size_in_which_it_is_shown(tmp_path):
    """Boxes of YOLO are fractions of the photo as people see it, which is as the mapper reads it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "images").mkdir()
    Image.new("RGB", (200, 150)).save(tmp_path / "images/a.jpg", exif=exif)
    assert image_size(tmp_path / "images/a.jpg") == (150, 200)
    trees.write_text(tmp_path / "labels/a.txt", "0 0.5 0.5 0.2 0.5\n")
    annotations = find(tmp_path).splits["train"].annotations
    assert trees.table(annotations) == {"a": [("0", 60, 50, 30, 100)]}
    (record,) = to_records(require_sound(annotations))
    assert DetrMapper(augmentations=[], is_train=True)(record)["image"].shape == (3, 200, 150)


def test_photos_without_a_label_file_are_counted_and_none_at_all_is_refused(tmp_path, caplog):
    """They may be photos without objects, or a forgotten folder."""
    trees.write_images(tmp_path / "images")
    trees.write_labels(tmp_path / "labels", "a")
    trees.write_text(tmp_path / "data.yaml", "train: images\nnames: [screw, bolt]\n")
    with caplog.at_level(logging.WARNING):
        assert len(find(tmp_path).splits["train"].annotations.images) == 3
    assert "2 of 3 photos have no label file" in caplog.text
    (tmp_path / "labels/a.txt").unlink()
    with pytest.raises(DatasetError, match=r"none of 3 photos has a label file, such as .*labels/a.txt"):
        _ = find(tmp_path).splits["train"].annotations


@pytest.mark.parametrize("yaml", ["train: train/images\nval: valid/images\nnames: [screw, bolt]\n", ""])
def test_objects_without_an_image_are_counted_per_split(tmp_path, caplog, yaml):
    """Two label files of train have no photo, one of them beside one that is not read; an empty file has no object."""
    for split in ("train", "valid"):
        trees.write_images(tmp_path / split / "images", "a")
        trees.write_labels(tmp_path / split / "labels", "a")
    for name, text in {"b": "0 0.5 0.5 0.1 0.1\n", "more/c": "0 0.5 0.5 0.1 0.1\n", "d": ""}.items():
        trees.write_text(tmp_path / f"train/labels/{name}.txt", text)
    (tmp_path / "train/images/b.HEIC").write_bytes(b"")
    trees.write_text(tmp_path / ("data.yaml" if yaml else "classes.txt"), yaml or "screw\nbolt\n")
    splits = find(tmp_path).splits
    with caplog.at_level(logging.WARNING):
        assert len(splits["val"].annotations.images) == 1
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING):
        assert len(splits["train"].annotations.images) == 1
    lost, unread = caplog.messages
    assert "train: 2 label files with objects have no image and do not count, such as" in lost and "b.txt" in lost
    assert "train: 1 photos are in a format that is not read, such as" in unread and "b.HEIC" in unread


@pytest.mark.parametrize("folder", ["/home/else/parts/", "C:\\\\work\\\\parts\\\\", "D:/parts/"])
@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("base", ["", "path: {}\n"])
def test_absolute_paths_of_another_machine_are_found_by_their_end(tmp_path, folder, listed, base):
    """Of data.yaml's folders and lists, and of the lines of a list; the longest end that exists counts."""
    for split, name in {"train": "a", "val": "c"}.items():
        trees.write_images(tmp_path / "images" / split, name)
        trees.write_labels(tmp_path / "labels" / split, name)
    folder = folder.replace("\\\\", "\\")
    lines = [
        f"{split}: {folder}{split}.txt\n" if listed else f"{split}: {folder}images/{split}\n"
        for split in ("train", "val")
    ]
    trees.write_text(tmp_path / "data.yaml", base.format(folder) + "".join(lines) + "names: [screw, bolt]\n")
    for split, name in {"train": "a", "val": "c"}.items():
        trees.write_text(tmp_path / f"{split}.txt", f"{folder}images/{split}/{name}.jpg\n")
    splits = find(tmp_path).splits
    assert {split: list(trees.table(splits[split].annotations)) for split in splits} == {"train": ["a"], "val": ["c"]}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
def test_a_coco_file_in_another_unicode_encoding_is_recognised(tmp_path, encoding):
    """Editors on Windows save UTF-16; the reader of COCO takes it as well."""
    trees.write_images(tmp_path / "images")
    (tmp_path / "train.json").write_text(json.dumps(trees.coco()), encoding=encoding)
    assert len(find(tmp_path).splits["train"].annotations.annotations) == 4


def test_two_photos_for_one_label_file_are_refused(tmp_path):
    """a.jpg and a.png would share a.txt."""
    trees.write_images(tmp_path, "a")
    trees.write_images(tmp_path, "a", suffix=".png")
    trees.write_labels(tmp_path, "a")
    with pytest.raises(DatasetError, match=r"a.jpg and .*a.png would share one label file"):
        find(tmp_path)


def test_a_line_with_a_class_beyond_the_names_is_named(tmp_path):
    """The sentence of the checks names the label file and its line."""
    trees.write_images(tmp_path / "images", "a")
    trees.write_text(tmp_path / "labels/a.txt", "0 0.5 0.5 0.1 0.1\n5 0.5 0.5 0.1 0.1\n")
    trees.write_text(tmp_path / "data.yaml", "train: images\nnames: [screw, bolt]\n")
    with pytest.raises(DatasetError, match=r"a.txt, line 2"):
        _ = find(tmp_path).class_names


def test_class_lists_that_differ_are_refused(tmp_path):
    """Darknet exports have one list per split."""
    for split, names in {"train": "screw\nbolt\n", "valid": "bolt\nscrew\n"}.items():
        trees.write_images(tmp_path / split, "a")
        trees.write_labels(tmp_path / split, "a")
        trees.write_text(tmp_path / split / "_darknet.labels", names)
    with pytest.raises(DatasetError, match="list other classes, or in another order: give both the same"):
        find(tmp_path)
    (tmp_path / "valid/_darknet.labels").unlink()
    assert find(tmp_path).class_names == ["screw", "bolt"]


def test_links_to_folders_count_and_a_circle_ends(tmp_path):
    """Data sets are often links to a disk; a link to a folder above itself is left out, and so are hidden files."""
    trees.write_text(tmp_path / "disk/a.txt", "")
    trees.write_text(tmp_path / "disk/._a.txt", "")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/photos").symlink_to(tmp_path / "disk")
    (tmp_path / "data/self").symlink_to(tmp_path / "data")
    assert list(files_below(tmp_path / "data")) == [tmp_path / "data/photos/a.txt"]


LATIN = "Schl\u00fcssel\n".encode("latin-1")


def yolo_folder(root: Path, **files: bytes) -> Path:
    """Write a photo and its label, and files by name (`_` for the dot)."""
    trees.write_images(root / "images", "a")
    trees.write_text(root / "labels/a.txt", "0 0.5 0.5 0.1 0.1\n")
    for name, content in files.items():
        (root / name.replace("_", ".")).write_bytes(content)
    return root


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"classes_txt": LATIN}, r"classes.txt is not in UTF-8 \(byte 5 .*\): save it as UTF-8"),
        ({"data_yaml": b"train: images\nnames: [" + LATIN.strip() + b"]\n"}, "data.yaml is not in UTF-8"),
        ({"data_yaml": b"train: images\nnames: n.txt\n", "n_txt": LATIN}, "n.txt is not in UTF-8"),
        ({"data_yaml": b"train: list.txt\nnames: [a]\n", "list_txt": LATIN}, "list.txt is not in UTF-8"),
        ({"data_yaml": b"train: images\nnc: many\n"}, "data.yaml has nc: many, which is no number of classes"),
        ({"data_yaml": b"train: images\nnc: 999999999\n"}, "nc: 999999999, which is no number of classes up to"),
        ({"data_yaml": b"train: images\nnc: 1\nmade: 2024-99-99\n"}, "data.yaml cannot be read"),
    ],
)
def test_a_text_file_of_yolo_that_cannot_be_read_is_named(tmp_path, files, sentence):
    """The file and the remedy stand in one sentence."""
    with pytest.raises(DatasetError, match=sentence):
        _ = find(yolo_folder(tmp_path, **files)).class_names


@pytest.mark.parametrize(
    ("name", "read"),
    [("yes", "True"), ("no", "False"), ("on", "True"), ("~", "None"), ("null", "None"), ("[a]", r"\['a'\]")],
)
@pytest.mark.parametrize("form", ["names: [crab, {}]", "names: {{0: crab, 1: {}}}", "names:\n- crab\n- {}\n"])
def test_a_class_name_that_yaml_reads_as_no_text_is_refused(tmp_path, name, read, form):
    """A class called False would appear in results without a word; quoted it is `no`, and numbers are names."""
    yolo_folder(tmp_path, data_yaml=("train: images\n" + form.format(name)).encode())
    with pytest.raises(
        DatasetError, match=rf"data.yaml has a class name, number 1, that YAML reads as {read}: quote it"
    ):
        find(tmp_path)
    yolo_folder(tmp_path, data_yaml=("train: images\n" + form.format("'no'")).encode())
    assert find(tmp_path).class_names == ["crab", "no"]
    yolo_folder(tmp_path, data_yaml=("train: images\n" + form.format("7")).encode())
    assert find(tmp_path).class_names == ["crab", "7"]


def test_a_yaml_file_of_any_name_in_another_encoding_is_named(tmp_path):
    """Given as the data, it is not taken for a file of another kind."""
    root = yolo_folder(tmp_path, parts_yaml=b"train: images\nnames: [" + LATIN.strip() + b"]\n")
    with pytest.raises(DatasetError, match="parts.yaml is not in UTF-8"):
        find(root / "parts.yaml")


def test_an_absurd_class_without_names_is_refused(tmp_path):
    """10,000 classes without names are read; as many names as the class 300000000 needs would take all memory."""
    yolo_folder(tmp_path)
    trees.write_text(tmp_path / "labels/a.txt", "9999 0.5 0.5 0.1 0.1\n")
    assert len(find(tmp_path).class_names) == 10_000
    trees.write_text(tmp_path / "labels/a.txt", "0 0.5 0.5 0.1 0.1\n300000000 0.5 0.5 0.1 0.1\n")
    with pytest.raises(DatasetError, match=r"a.txt, line 2, has class 300000000, and no file lists the classes"):
        _ = find(tmp_path).class_names


@pytest.mark.parametrize(
    ("other", "remedy"),
    [
        ("1 0.5 0.5 0.1 0.1", r"in the images with it \(1 in all, none with a class 0\) .* take 1 off every class if"),
        ("0 0.5 0.5 0.1 0.1", r"0 crab, 1 fish: correct it or add the category"),
    ],
)
def test_files_that_count_from_1_among_others_are_told(tmp_path, other, remedy):
    """Two names, so that 2 is beyond them; the hint needs an image without a 0, while another counts from 0."""
    root = yolo_folder(tmp_path, data_yaml=b"train: images\nnames: [crab, fish]\n")
    trees.write_images(root / "images", "b")
    trees.write_text(root / "labels/b.txt", f"{other}\n2 0.3 0.3 0.1 0.1\n")
    with pytest.raises(DatasetError, match=remedy) as error:
        require_sound(find(root).splits["train"].annotations)
    assert "b.txt, line 2, has category_id 2, which is not among the file's categories, 0 crab, 1 fish: " in str(
        error.value
    )


@pytest.mark.parametrize("encoding", ["shift_jis", "unheard-of"])
def test_an_xml_file_in_an_encoding_that_is_not_read_is_named(tmp_path, encoding):
    """Python's parser knows no multi-byte encodings but Unicode's."""
    trees.write_images(tmp_path, "a")
    (tmp_path / "a.xml").write_text(f'<?xml version="1.0" encoding="{encoding}"?><annotation></annotation>')
    with pytest.raises(DatasetError, match=r"a.xml is in an encoding that is not read \(.*\): save it as UTF-8"):
        _ = find(tmp_path).splits["train"].annotations


def test_lists_of_image_sets_in_another_encoding_are_named(tmp_path):
    """The sentence names the list."""
    trees.write_xmls(tmp_path / "Annotations")
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/train.txt").write_bytes(LATIN)
    with pytest.raises(DatasetError, match="train.txt is not in UTF-8"):
        find(tmp_path)


def test_an_infinite_size_of_an_xml_file_is_none(tmp_path):
    """The size is taken from the image then."""
    size = "<size><width>inf</width><height>5</height></size>"
    assert read_xml(xml_file(tmp_path, box=edges(1, 1, 2, 2), size=size)).size is None


def test_a_file_name_that_no_file_can_have_is_a_missing_image(tmp_path):
    """Longer than file systems allow: the checks of images name it, and nothing ends in a traceback."""
    content = trees.coco("a")
    content["images"][0]["file_name"] = "n" * 5000
    trees.write_json(tmp_path / "train.json", content)
    (image,) = find(tmp_path).splits["train"].annotations.images
    assert image["file_name"] == "n" * 5000
    content["images"][0].pop("width")
    trees.write_json(tmp_path / "train.json", content)
    with pytest.raises(DatasetError, match="its file cannot be read"):
        _ = find(tmp_path).class_names
