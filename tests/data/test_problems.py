"""Problems of annotations: one case per kind, what its sentence says, and what a repair leaves behind."""

import copy
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from align_detr.data.annotations import Annotations
from align_detr.data.coco import read_coco
from align_detr.data.kinds import KINDS
from align_detr.data.problems import find_problems, repair, require_sound, to_records
from align_detr.errors import DatasetError

NAN, BIG = float("nan"), 2**53 + 1
Change = Callable[[Annotations], object]


@pytest.fixture
def sound(tmp_path: Path) -> Annotations:
    """Return two images of 100x50 pixels, the second of which has a file, with three boxes of two classes."""
    Image.new("RGB", (100, 50)).save(tmp_path / "b.png")
    (tmp_path / "cam").mkdir()
    Image.new("RGB", (100, 50)).save(tmp_path / "cam" / "c.png")
    boxes = [(1, 1, 5, [10.5, 5, 20, 30], 1), (2, 1, 7, [50, 10, 30, 20], 0), (3, 2, 5, [0, 0, 100, 50], 0)]
    return Annotations(
        images=[{"id": i, "file_name": f"{'ab'[i - 1]}.png", "width": 100, "height": 50} for i in (1, 2)],
        annotations=[
            {"id": i, "image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
            for i, image, label, box, crowd in boxes
        ],
        categories=[{"id": 5, "name": "cell"}, {"id": 7, "name": "star"}],
        image_root=tmp_path,
        source=Path("train.json"),
    )


def image(row: int, **values: object) -> Change:
    return lambda a: a.images[row].update(values)


def box(row: int, **values: object) -> Change:
    return lambda a: a.annotations[row].update(values)


def category(row: int, **values: object) -> Change:
    return lambda a: a.categories[row].update(values)


def without(table: str, row: int, key: str) -> Change:
    return lambda a: getattr(a, table)[row].pop(key)


def boxes(*values: list) -> Change:
    """Put these boxes on the second image, in place of all others."""
    template = {"image_id": 2, "category_id": 5, "area": 1, "iscrowd": 0}
    return lambda a: a.annotations.__setitem__(
        slice(None), [{**template, "id": row + 1, "bbox": value} for row, value in enumerate(values)]
    )


def both(first: Change, second: Change) -> Change:
    return lambda a: (first(a), second(a))


def entry(table: str, value: object) -> Change:
    return lambda a: getattr(a, table).append(value)


CASES: dict[str, tuple[Change, str]] = {
    "image-not-an-object": (entry("images", "c.png"), r"entry 2 of the images .* is no JSON object"),
    "image-id-missing": (without("images", 1, "id"), r"image number 1 .*\(b.png\) has no id"),
    "image-id-repeated": (image(1, id=1), r"image 1 \(b.png\) has the same id as a.png"),
    "image-id-too-large": (image(1, id=2**63), "more than 63 bits"),
    "image-id-large": (
        both(image(1, id=BIG), box(2, image_id=BIG)),
        r"image 9007199254740993 \(b.png\) has an id beyond 2\^53",
    ),
    "image-repeated": (lambda a: a.images.append(dict(a.images[0])), r"image 1 \(a.png\) is listed more than once"),
    "image-file-name-missing": (image(1, file_name=None), r"image 2 \(None\) has no file_name"),
    "image-file-name-backslash": (image(1, file_name="cam\\c.png"), "has a file_name with backslashes"),
    "image-file-repeated": (image(1, file_name="a.png"), r"image 2 \(a.png\) is listed .* under several ids"),
    "image-size-text": (image(1, width="100", height=50.0), "as text or floats"),
    "image-size-missing": (without("images", 1, "width"), r"has the width and height \(None, 50\): they are taken"),
    "image-size-unknown": (image(0, width=0, height=0), r"image 1 \(a.png\) has .* \(0, 0\), and its file cannot"),
    "category-not-an-object": (entry("categories", "cell"), "entry 2 of the categories"),
    "category-id-missing": (without("categories", 0, "id"), r"category number 0 .*\(cell\) has no id"),
    "category-id-mixed": (category(0, id="5"), r"category 5 \(cell\) has an id of text beside ids of numbers"),
    "category-id-repeated": (category(1, id=5), r"category 5 \(star\) has the same id as cell"),
    "category-id-too-large": (category(1, id=2**64), "more than 63 bits"),
    "category-id-large": (both(category(1, id=BIG), box(1, category_id=BIG)), r"beyond 2\^53"),
    "category-repeated": (entry("categories", {"id": 5, "name": "cell"}), "more than once with the same name"),
    "category-name-missing": (category(1, name=" "), "category 7 .* has no name"),
    "category-name-repeated": (category(1, name="cell"), r"category 7 \(cell\) has the same name as category 5"),
    "category-name-unused": (entry("categories", {"id": 0, "name": "cell"}), r"category 0 \(cell\) has no annotations"),
    "category-unused": (entry("categories", {"id": 8, "name": "moon"}), r"category 8 \(moon\) has no box"),
    "annotation-not-an-object": (entry("annotations", []), "entry 3 of the annotations"),
    "annotation-id-missing": (
        without("annotations", 1, "id"),
        r"annotation number 1 .* of image 1 \(a.png\) has no id",
    ),
    "annotation-id-text": (box(1, id="a9"), "annotation a9 of image 1 .* has the id a9, which is no whole number"),
    "annotation-id-zero": (box(0, id=0), "annotation 0 of image 1 .* takes 0 for no match"),
    "annotation-id-large": (box(0, id=BIG), r"beyond 2\^53"),
    "annotation-repeated": (
        lambda a: a.annotations.append({**a.annotations[1]}),
        "annotation 2 .* is listed more than once",
    ),
    "annotation-id-repeated": (box(2, id=1), r"annotation 1 of image 2 \(b.png\) has the id of another annotation"),
    "image-reference-missing": (without("annotations", 2, "image_id"), "annotation 3 .* has no image_id"),
    "image-reference-unknown": (box(2, image_id=9), "annotation 3 .* has image_id 9, which is not among"),
    "image-reference-text": (
        box(2, image_id="2"),
        r"annotation 3 of image 2 \(b.png\) has its image_id in another type",
    ),
    "category-reference-missing": (box(2, category_id=None), "annotation 3 .* has no category_id"),
    "category-reference-unknown": (box(2, category_id=6), "annotation 3 .* has category_id 6, which is not among"),
    "category-reference-text": (box(2, category_id="5"), "category_id in another type"),
    "box-missing": (without("annotations", 2, "bbox"), r"annotation 3 of image 2 \(b.png\) has no box"),
    "box-malformed": (box(2, bbox=[1, 2, 3]), r"has the box \[1, 2, 3\], which is no box of four numbers"),
    "box-text": (box(2, bbox=["30", "16", "33", "30"]), r"has the box \['30', .*\] as text"),
    "box-not-finite": (box(2, bbox=[1, NAN, 3, 4]), "which is not finite"),
    "box-negative-size": (box(2, bbox=[30, 40, -10, 5]), r"\[30, 40, -10, 5\] of negative width or height"),
    "box-empty": (box(2, bbox=[30, 40, 0, 5]), r"\[30, 40, 0, 5\] without width or height"),
    "box-outside": (box(2, bbox=[100, 40, 10, 5]), "outside of its image of 100x50 pixels"),
    "box-beyond": (box(2, bbox=[90, 40, 12, 5]), "reaches beyond its image of 100x50 pixels"),
    "box-corners": (boxes(*[[60, 20, 90, 40 + k] for k in range(5)]), "all boxes of the file read like corners"),
    "box-normalized": (boxes([0.5, 0.25, 0.5, 0.75], [0.9, 0.9, 0.3, 0.3]), "read like fractions of the image"),
    "box-below-a-pixel": (box(2, bbox=[0, 0, 1, 1]), "of at most a pixel in the upper left corner"),
    "area-missing": (box(2, area=None), "has the area None: width x height is taken"),
    "area-text": (box(2, area="5000"), "has the area '5000' as text"),
    "iscrowd-missing": (without("annotations", 2, "iscrowd"), "annotation 3 .* has no iscrowd: 0 is taken"),
    "iscrowd-text": (box(2, iscrowd="0"), "has iscrowd '0': it is read as 0 or 1"),
    "iscrowd-unknown": (box(2, iscrowd=2), "has iscrowd 2: write 0 or 1"),
    "ignored": (box(2, ignore=1), "annotation 3 .* has ignore 1"),
    "polygon-flat": (box(2, segmentation=[1, 1, 9, 1, 9, 9]), "has its polygon as a flat list"),
    "mask-broken": (box(2, segmentation={"counts": [1, -1], "size": [1, 1]}), "it is left out, and the box stays"),
    "keypoints-broken": (box(2, keypoints=["a"]), "has keypoints that are no numbers in threes"),
    "polygon-broken": (box(2, segmentation=[[1, 1, 9, 1]]), "that part is left out, and the box stays"),
}


def test_sound_annotations_have_no_problem_and_stay_as_they_are(sound: Annotations) -> None:
    before = copy.deepcopy(sound)
    repaired, problems = repair(sound)
    assert problems == [] and repaired == sound == before


def test_every_kind_has_a_case() -> None:
    of_whole_lists = {"image-none", "category-none"}  # in test_broken_data.py
    assert CASES.keys() | of_whole_lists == KINDS.keys()


@pytest.mark.parametrize("kind", CASES)
def test_kind_is_found_named_and_treated(kind: str, sound: Annotations) -> None:
    """The sentence names the place; errors are refused with it; a repaired split has no repairs and errors left."""
    change, sentence = CASES[kind]
    change(sound)
    before = repr(sound)
    found = {problem.kind: problem for problem in find_problems(sound)}
    assert kind in found, f"found only {list(found)}"
    problem = found[kind]
    assert re.search(sentence, problem.sentence) and problem.sentence.startswith("In train.json, ")
    assert problem.sentence.endswith(f": {problem.remedy}.") and "\n" not in problem.sentence
    if problem.severity == "error":
        with pytest.raises(DatasetError) as error:
            require_sound(sound)
        assert str(error.value).startswith("In train.json, ")
    else:
        assert not [p for p in found.values() if p.severity == "error"]
        assert {p.severity for p in find_problems(require_sound(sound))} <= {"note"}
    assert repr(sound) == before, "what was given stays as it is"


def objects(annotations: Annotations) -> list[dict]:
    return [a for record in to_records(require_sound(annotations)) for a in record["annotations"]]


@pytest.mark.parametrize("ids", [(0, 1, 2), (4, 4, 4), ("a", "b", "c"), (1, BIG, 2), (None, 1, 2), (1, True, 3)])
def test_ids_of_annotations_are_renumbered(ids: tuple, sound: Annotations) -> None:
    for annotation, id_ in zip(sound.annotations, ids, strict=True):
        annotation["id"] = id_
    assert [a["id"] for a in repair(sound)[0].annotations] == [1, 2, 3]


def test_numbers_as_text_are_numbers(sound: Annotations) -> None:
    sound.annotations[2].update(bbox=["30", "16.5", "33", "3e1"], area="7.5", iscrowd="0")
    sound.images[1].update(width="100", height="50")
    annotation = objects(sound)[2]
    assert annotation["bbox"] == [30, 16.5, 33, 30] and annotation["area"] == 7.5 and annotation["iscrowd"] == 0


@pytest.mark.parametrize("text", ["", "1,5", "x", "0x1F", [1], {}, True, None])
def test_other_text_is_no_number(text: object, sound: Annotations) -> None:
    sound.annotations[2]["bbox"] = [text, 1, 2, 3]
    with pytest.raises(DatasetError, match="annotation 3 .* no box of four numbers"):
        require_sound(sound)


def test_the_area_of_the_file_stays_and_only_a_missing_one_is_computed(sound: Annotations) -> None:
    """An area of COCO is that of the mask, by which objects are small, medium or large."""
    sound.annotations[0]["area"] = 123.25
    del sound.annotations[1]["area"]
    sound.annotations[2]["area"] = 0
    assert [a["area"] for a in objects(sound)] == [123.25, 600.0, 5000.0]


@pytest.mark.parametrize("value", ["0", 0.0, False, "false", None])
def test_text_is_no_crowd(value: object, sound: Annotations) -> None:
    for annotation in sound.annotations:
        annotation["iscrowd"] = value
    assert [a["iscrowd"] for a in objects(sound)] == [0, 0, 0]


@pytest.mark.parametrize("value", ["1", 1.0, True, "True"])
def test_crowds_stay_crowds(value: object, sound: Annotations) -> None:
    sound.annotations[2]["iscrowd"] = value
    assert [a["iscrowd"] for a in objects(sound)] == [1, 0, 1]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([[1, 1, 9, 1]], None),
        ([[]], None),
        ("mask", None),
        ({"size": [50, 100]}, None),
        ({"size": [50, 100], "counts": [1.5, "x"]}, None),
        ([[1, 1, 9, 1], [1, 1, 9, 1, 9, 9]], [[1, 1, 9, 1, 9, 9]]),
        ([1, 1, 9, 1, 9, 9], [[1, 1, 9, 1, 9, 9]]),
        ([], None),
        (None, None),
    ],
)
def test_polygons_never_cost_a_box(given: object, kept: object, sound: Annotations) -> None:
    sound.annotations[2]["segmentation"] = given
    records = objects(sound)
    assert len(records) == 3 and records[2].get("segmentation") == kept


def test_run_length_encodings_are_kept_compressed(sound: Annotations) -> None:
    """A mask of one column of 50 pixels: 0 zeros, 50 ones, 4,950 zeros."""
    sound.annotations[2]["segmentation"] = {"size": [50, 100], "counts": [0, 50, 4950]}
    segmentation = objects(sound)[2]["segmentation"]
    assert segmentation["size"] == [50, 100] and isinstance(segmentation["counts"], bytes)


def test_ids_of_text_lead_to_their_images_and_classes(sound: Annotations) -> None:
    for i in sound.images:
        i["id"] = f"photo-{i['id']}"
    for c in sound.categories:
        c["id"] = str(c["id"])
    for a in sound.annotations:
        a["image_id"] = f"photo-{a['image_id']}"
    records = to_records(require_sound(sound))
    assert [(r["image_id"], len(r["annotations"])) for r in records] == [("photo-1", 2), ("photo-2", 1)]
    assert [a["category_id"] for r in records for a in r["annotations"]] == [0, 1, 0]


def test_images_with_numbers_and_texts_as_ids(sound: Annotations) -> None:
    sound.images[0]["id"] = sound.annotations[0]["image_id"] = sound.annotations[1]["image_id"] = "first"
    assert [r["image_id"] for r in to_records(require_sound(sound))] == [2, "first"]


def test_references_off_by_one_are_refused_with_a_hint(sound: Annotations) -> None:
    for annotation in sound.annotations:
        annotation["image_id"] -= 1
    with pytest.raises(DatasetError, match=r"has image_id 0, which is .*\(1 more like it\): add 1 to all of them"):
        require_sound(sound)


def test_the_size_of_a_turned_photo_is_that_in_which_it_is_shown(sound: Annotations, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (100, 50)).save(tmp_path / "b.png", exif=exif)
    sound.annotations.pop()
    del sound.images[1]["width"]
    repaired = repair(sound)[0].images[1]
    assert (repaired["width"], repaired["height"]) == (50, 100)


def test_more_cases_are_counted_and_found_by_their_rows(sound: Annotations) -> None:
    for row in (0, 2):
        sound.annotations[row]["category_id"] = 6
    (problem,) = [p for p in find_problems(sound) if p.severity == "error"]
    assert list(problem.rows) == [0, 2] and problem.count == 2
    assert "categories, 5 cell, 7 star (1 more like it): correct it" in problem.sentence


def test_places_of_annotations_without_ids_are_those_of_their_source(sound: Annotations) -> None:
    sound.where = [f"labels/a.txt, line {row + 1}," for row in range(3)]
    sound.annotations[1]["bbox"] = [0, 0, NAN, 1]
    with pytest.raises(DatasetError, match=r"In train.json, labels/a.txt, line 2, has the box"):
        require_sound(sound)


def test_boxes_up_to_a_pixel_beyond_the_image_are_rounding(sound: Annotations) -> None:
    sound.annotations[2]["bbox"] = [-1, -0.5, 102, 51.5]
    assert find_problems(sound) == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_with_a_byte_order_mark(encoding: str, tmp_path: Path) -> None:
    text = '{"images": [{"id": 1, "file_name": "ä.png", "width": 9, "height": 9}], "categories": []}'
    (tmp_path / "a.json").write_text(text, encoding=encoding)
    annotations = read_coco(tmp_path / "a.json", tmp_path)
    assert annotations.images[0]["file_name"] == "ä.png" and annotations.annotations == []


def test_file_of_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"images": ["ä"]}', encoding="latin-1")
    with pytest.raises(DatasetError, match=r"a\.json is not in UTF-8 .*: save it as UTF-8\."):
        read_coco(tmp_path / "a.json", tmp_path)


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_table_that_is_no_list(key: str, tmp_path: Path) -> None:
    tables = {"images": "[]", "annotations": "[]", "categories": "[]"} | {key: "{}"}
    text = "{" + ", ".join(f'"{name}": {value}' for name, value in tables.items()) + "}"
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DatasetError, match=f'"{key}" of .*a.json is no list'):
        read_coco(tmp_path / "a.json", tmp_path)


def as_text(value: object) -> object:
    """Return all numbers below `value` as text."""
    if isinstance(value, dict):
        return {key: as_text(item) for key, item in value.items()}
    return [as_text(item) for item in value] if isinstance(value, list) else str(value)


def each(*tables: str, **values: object) -> Change:
    """Set values in all entries of some lists; a function is called with the entry."""

    def change(annotations: Annotations) -> None:
        for table in tables:
            for row in getattr(annotations, table):
                row.update({key: value(row) if callable(value) else value for key, value in values.items()})

    return change


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(both(box(0, id=2), box(1, id=1)), id="ids that start again in every image (datumaro)"),
        pytest.param(each("annotations", id=lambda a: a["id"] - 1, ignore=0), id="ids from 0 (globox, label-studio)"),
        pytest.param(
            each("annotations", id=lambda a: a["id"] - 1, iscrowd=lambda a: float(a["iscrowd"]), segmentation=None),
            id="ids from 0, crowds as floats, no polygon (pylabel)",
        ),
        pytest.param(each("annotations", id=lambda a: f"b51-{a['id']}"), id="UUIDs"),
        pytest.param(each("annotations", area=None), id="no area"),
        pytest.param(each("annotations", segmentation=[[]]), id="empty polygons"),
        pytest.param(each("annotations", image_id=lambda a: str(a["image_id"])), id="references as text"),
        pytest.param(each("annotations", image_id=lambda a: float(a["image_id"])), id="references as floats (pandas)"),
        pytest.param(lambda a: a.annotations.__setitem__(slice(None), as_text(a.annotations)), id="all as text"),
        pytest.param(lambda a: a.images.reverse(), id="images in another order"),
        pytest.param(lambda a: a.categories.reverse(), id="categories in another order"),
        pytest.param(image(1, width=0, height=0), id="no size"),
        pytest.param(lambda a: a.categories.insert(0, {"id": 0, "name": "star"}), id="a namesake without boxes"),
    ],
)
def test_what_tools_write_is_read_as_the_sound_file(change: Change, sound: Annotations) -> None:
    """The records are the same, but for the ids of the boxes."""
    expected = to_records(require_sound(copy.deepcopy(sound)))
    change(sound)
    read = to_records(require_sound(sound))
    for record in [*expected, *read]:
        for annotation in record["annotations"]:
            assert annotation.pop("id") > 0
    assert read == expected
