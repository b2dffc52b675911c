"""Records of a COCO file's boxes, and the cache of their columns: the same as what the whole file gives."""

import json
import logging
import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.data import MetadataCatalog

from align_detr.data import DetrMapper, box_records, build_train_loader, load_dataset, records_cache
from align_detr.data.box_records import load_box_records
from align_detr.data.coco import read_coco
from align_detr.data.coco_boxes import parse_boxes
from align_detr.data.lazy_records import JoinedRecords, Records, are_wide, count_objects, selected
from align_detr.data.register import load_records
from align_detr.errors import DatasetError
from align_detr.paths import data_path
from support.datasets import forgotten

NAME = "boxes_for_tests"
POLYGON = [1, 1, 9, 1.5, 9, 9]
FULL, MASK = {"size": [2, 3], "counts": [2, 4]}, {"size": [2, 3], "counts": [2, 3]}


@pytest.fixture(autouse=True)
def names() -> Iterator[None]:
    with forgotten(NAME):
        yield


@pytest.fixture
def sound() -> dict[str, Any]:
    """Return three images in another order than that of their ids, the last without objects, and four objects."""
    boxes = [
        (1, 7, 5, [4, 5.5, 10, 12], 0),
        (2, 3, 1, [0, 0, 8, 8], 0),
        (3, 7, 1, [2, 2, 20, 20], 1),
        (9, 3, 5, [1.5] * 4, 0),
    ]
    return {
        "info": {"ä": "\u00e4"},
        "images": [
            {"id": i, "file_name": f"{i}ä.png", "width": w, "height": 30, "license": 1}
            for i, w in ((7, 40), (3, 20), (5, 30))
        ],
        "annotations": [
            {
                "id": i,
                "image_id": image,
                "category_id": c,
                "bbox": b,
                "area": b[2] * b[3],
                "iscrowd": crowd,
                "segmentation": [POLYGON],
            }
            for i, image, c, b, crowd in boxes
        ],
        "categories": [{"id": 5, "name": "star"}, {"id": 1, "name": "cell"}],
    }


def outcome(load: Callable[[], Any], caplog: pytest.LogCaptureFixture) -> tuple[Any, list[str], Any]:
    """Return the records without masks and keypoints, or the sentence of the error; the warnings; the classes' ids."""
    MetadataCatalog.data.pop(NAME, None)
    caplog.clear()
    try:
        with caplog.at_level(logging.WARNING):
            records: Any = [dict(record) for record in load()]
        for record in records:
            record["annotations"] = [
                {key: value for key, value in a.items() if key not in ("segmentation", "keypoints")}
                for a in record["annotations"]
            ]
    except DatasetError as error:
        records = str(error)
    classes = MetadataCatalog.get(NAME).get("thing_dataset_id_to_contiguous_id")
    return (
        repr(records),
        [line.getMessage() for line in caplog.records],
        (classes, MetadataCatalog.get(NAME).get("thing_classes")),
    )


def write(path: Path, content: Any, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(
        content if isinstance(content, bytes) else json.dumps(content, ensure_ascii=False).encode(encoding)
    )
    return path


def compare(path: Path, caplog: pytest.LogCaptureFixture) -> Any:
    """Return the records, after a comparison with those of the whole file, down to the types of numbers."""
    expected = outcome(lambda: load_records(NAME, read_coco(path, path.parent)), caplog)
    assert outcome(lambda: load_box_records(NAME, path, path.parent), caplog) == expected
    return expected[0]


@pytest.mark.parametrize(
    "file", ["bccd/instances_val", "coco_mini/instances_train", "coco_mini/instances_val", "raccoon/instances_val"]
)
def test_the_records_are_those_of_the_whole_file(file: str, caplog: pytest.LogCaptureFixture) -> None:
    path = data_path(f"{file}.json")
    parsed = parse_boxes(path.read_bytes(), path, path.parent)
    assert parsed is not None and "segmentation" not in parsed.annotations[0]
    compare(path, caplog)


def box(row: int, **values: object) -> Callable[[dict], object]:
    return lambda content: content["annotations"][row].update(values)


def every(**values: object) -> Callable[[dict], object]:
    return lambda content: [each.update(values) for each in content["annotations"]]


CHANGES: dict[str, Callable[[dict], object]] = {
    "nothing": lambda content: None,
    "no annotations": lambda content: content.pop("annotations"),
    "annotations of none": lambda content: content.update(annotations=[]),
    "annotations null": lambda content: content.update(annotations=None),
    "an annotation that is a list": lambda content: content["annotations"].append([1]),
    "an image that is a number": lambda content: content["images"].append(1),
    "no images": lambda content: content.update(images=[]),
    "no categories": lambda content: content.pop("categories"),
    "ids from 0": box(0, id=0),
    "ids as text": every(id="a"),
    "no id": lambda content: content["annotations"][1].pop("id"),
    "an id null": box(1, id=None),
    "an annotation twice": lambda content: content["annotations"].append(dict(content["annotations"][0])),
    "an id twice": box(1, id=1),
    "a large id": box(1, id=2**53 + 1),
    "references as text": every(image_id="7"),
    "a reference to nothing": box(2, image_id=70),
    "a class as float": box(2, category_id=1.0),
    "no iscrowd": lambda content: [each.pop("iscrowd") for each in content["annotations"]],
    "iscrowd true": box(0, iscrowd=True),
    "no area": lambda content: content["annotations"][0].pop("area"),
    "an area as text": box(0, area="12"),
    "area 0": box(0, area=0),
    "a box as text": box(3, bbox=["1", "2", "3", "4"]),
    "a box of three": box(3, bbox=[1, 2, 3]),
    "no box": lambda content: content["annotations"][3].pop("bbox"),
    "a box without width": box(3, bbox=[1, 2, 0, 4]),
    "a box outside": box(3, bbox=[100, 2, 5, 4]),
    "a box of negative size": box(3, bbox=[10, 2, -5, 4]),
    "a box that is not finite": box(3, bbox=[10, 2, float("nan"), 4]),
    "a box with a large integer": box(3, bbox=[1, 2, 2**70, 4]),
    "ignored": box(0, ignore=1),
    "a flat polygon": box(0, segmentation=POLYGON),
    "a polygon of two points": box(0, segmentation=[[1, 2, 3, 4]]),
    "a polygon of text": box(1, segmentation=[["1"] * 6]),
    "an odd polygon": box(1, segmentation=[POLYGON, [*POLYGON, 3]]),
    "polygons null": every(segmentation=None),
    "empty polygons": every(segmentation=[[]]),
    "a mask": box(2, segmentation=FULL),
    "a broken mask": box(2, segmentation=MASK),
    "keypoints": box(0, keypoints=[1, 2, 2]),
    "broken keypoints": box(0, keypoints=[1, 2]),
    "images by text": lambda content: [each.update(id=f"{each['id']}") for each in content["images"]],
    "images by text and number": lambda content: content["images"][2].update(id="x"),
    "images by large numbers": lambda content: content["images"][2].update(id=2**62),
    "an image twice": lambda content: content["images"].append(dict(content["images"][0])),
    "a namesake": lambda content: content["categories"].append({"id": 9, "name": "star"}),
    "a size as text": lambda content: content["images"][0].update(width="40"),
    "no size": lambda content: content["images"][0].pop("width"),
    "backslashes": lambda content: content["images"][0].update(file_name="a\\b.png"),
    "a lone surrogate": lambda content: content["images"][0].update(file_name="\ud800.png"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_odd_files_give_the_same_records_warnings_and_errors(
    change: Callable[[dict], object], sound: dict, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change(sound)
    text = json.dumps(sound)
    compare(write(tmp_path / "a.json", text.encode()), caplog)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"area": 64', '"area": 63, "area": 64'),
        ('"annotations"', '"annotations": 5, "annotations"'),
        ('"area": 64', '"area": Infinity'),
        ('"license": 1', '"license": NaN'),
        ('"license": 1', '"license": 01'),
        ('"license": 1', '"license": "\x01"'),
        ('"area": 64', '"area": 1e400'),
        ("1.5, 9", "1e400, 9"),
        ('"bbox"', '"b\\u0062ox"'),
        ('"info"', '"ü"'),
        ("{", ""),
        ("{", "\ufeff{"),
    ],
)
def test_odd_json_gives_the_same_records_and_errors(
    old: str, new: str, sound: dict, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = json.dumps(sound, ensure_ascii=False)
    assert old in text
    compare(write(tmp_path / "a.json", text.replace(old, new, 1).encode()), caplog)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-32"])
def test_other_encodings(encoding: str, sound: dict, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In Latin-1 only "info" is not ASCII, which nobody decodes: the file is refused all the same."""
    for image in sound["images"]:
        image["file_name"] = "a.png"
    text = compare(write(tmp_path / "a.json", sound, encoding), caplog)
    assert ("is not in UTF-8" in text) == (encoding == "latin-1")


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let files of any size be kept; return the folder of the user's cache."""
    monkeypatch.setattr(records_cache, "SMALLEST", 0)
    monkeypatch.setenv("ALIGN_DETR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the list of files that are parsed from now on."""
    paths: list[Path] = []

    def count(content: bytes, path: Path, image_root: Path) -> Any:
        paths.append(path)
        return parse_boxes(content, path, image_root)

    monkeypatch.setattr(box_records, "parse_boxes", count)
    return paths


def load(path: Path) -> list[dict[str, Any]]:
    return list(load_box_records(NAME, path, path.parent))


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


def test_a_second_start_parses_nothing_and_warns_again(
    sound: dict, tmp_path: Path, kept: Path, parsed: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    sound["annotations"][3]["bbox"] = [100, 2, 5, 4]
    path = write(tmp_path / "data" / "a.json", sound)
    one, other = (outcome(lambda: load_box_records(NAME, path, tmp_path), caplog) for _ in range(2))
    assert one == other and len(parsed) == 1
    assert one[1] and all(line.startswith(f"In {path}, annotation 9 of image 3 (3ä.png)") for line in one[1])
    assert len(files_of(path.parent / ".align_detr_cache")) == 1 and not kept.exists()


def test_a_changed_file_is_read_anew_and_a_deleted_cache_is_made_anew(
    sound: dict, tmp_path: Path, kept: Path, parsed: list[Path]
) -> None:
    path = write(tmp_path / "data" / "a.json", sound)
    load(path)
    (before,) = files_of(path.parent / ".align_detr_cache")
    sound["annotations"][0]["bbox"] = [1, 1, 2, 2]
    changed = load(write(path, sound))
    assert changed[2]["annotations"][0]["bbox"] == [1, 1, 2, 2]
    (after,) = files_of(path.parent / ".align_detr_cache")  # not the earlier one beside it
    assert after != before
    after.unlink()
    assert load(path) == changed and after.is_file() and len(parsed) == 3


def test_only_what_was_kept_of_the_file_itself_is_removed(sound: dict, tmp_path: Path, kept: Path) -> None:
    path, other = (write(tmp_path / "data" / name, sound) for name in ("a.json", "a.json.bak"))
    load(path)
    load(other)
    folder = path.parent / ".align_detr_cache"
    (earlier,) = folder.glob("a.json.[!b]*[!k]")
    notes, part, old_part = (
        folder / name for name in ("a.json.notes", f"{earlier.name}.7.part", f"{earlier.name}.8.part")
    )
    for each in (notes, part, old_part):
        each.write_text("")
    os.utime(old_part, (0, 0))
    before = set(folder.iterdir())
    sound["annotations"][0]["bbox"] = [1, 1, 2, 2]
    load(write(path, sound))
    assert before - set(folder.iterdir()) == {earlier, folder / f"{earlier.name}.lock", old_part}


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-9],
        lambda data: data[:-9] + b"X" + data[-8:],
        lambda data: b"",
        lambda data: b"PK" + data,
        lambda data: data.replace(b'"star"', b'"stir"'),
        lambda data: data.replace(b"'shape': (3,)", b"'shape': (3,("),
    ],
)
def test_a_damaged_cache_is_made_anew(
    damage: Callable[[bytes], bytes],
    sound: dict,
    tmp_path: Path,
    kept: Path,
    parsed: list[Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = write(tmp_path / "data" / "a.json", sound)
    expected = load(path)
    (file,) = files_of(path.parent / ".align_detr_cache")
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert load(path) == expected and file.read_bytes() == whole and len(parsed) == 2
    assert caplog.text.count(f"The cache {file} cannot be used") == 1


def test_where_nothing_can_be_written_beside_the_data_the_user_has_a_cache(
    sound: dict, tmp_path: Path, kept: Path, parsed: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "data" / "a.json", sound)
    (path.parent / ".align_detr_cache").write_text("in the way")
    with caplog.at_level(logging.INFO):
        expected = load(path)
        assert load(path) == expected and len(parsed) == 1
    assert len(files_of(kept)) == 1 and caplog.text.count("cannot be written") == 1


def test_where_nothing_can_be_written_every_start_reads_the_file(
    sound: dict, tmp_path: Path, kept: Path, parsed: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "data" / "a.json", sound)
    (path.parent / ".align_detr_cache").write_text("in the way")
    kept.write_text("in the way")
    assert load(path) == load(path) and len(parsed) == 2
    assert caplog.text.count("cannot be kept for the next start") == 2 and "cannot be used" not in caplog.text


def test_what_depends_on_image_files_is_not_kept(sound: dict, tmp_path: Path, kept: Path, parsed: list[Path]) -> None:
    sound["images"][0]["file_name"] = "a\\b.png"
    path = write(tmp_path / "data" / "a.json", sound)
    assert load(path)[2]["file_name"] == str(path.parent / "a\\b.png")
    (path.parent / "a").mkdir()
    write(path.parent / "a" / "b.png", b"")
    assert load(path)[2]["file_name"] == str(path.parent / "a" / "b.png") and len(parsed) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_of_several_processes_one_reads_and_the_others_wait(
    sound: dict, tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, log = write(tmp_path / "data" / "a.json", sound), tmp_path / "parsed"

    def count(content: bytes, path: Path, image_root: Path) -> Any:
        with log.open("a") as file:
            file.write("parsed\n")
        return parse_boxes(content, path, image_root)

    monkeypatch.setattr(box_records, "parse_boxes", count)
    expected = len(sound["images"])
    processes = [
        multiprocessing.get_context("fork").Process(target=lambda: os._exit(len(load(path)) != expected))
        for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0] and log.read_text() == "parsed\n"


def test_records_are_a_sequence_of_fresh_dictionaries(sound: dict, tmp_path: Path, kept: Path) -> None:
    path = write(tmp_path / "data" / "a.json", sound)
    load(path)
    records = load_box_records(NAME, path, tmp_path)
    assert isinstance(records, Records) and len(records) == 3
    assert isinstance(records.columns.arrays["bbox"].base, np.ndarray), "a view of the memory map"
    records[0]["annotations"].clear()
    assert [len(record["annotations"]) for record in records] == [2, 0, 2]
    assert records[-1] == records[2] and records[1:] == list(records)[1:] and records == list(records)
    assert records != records[:2] and records != 5
    assert pickle.loads(pickle.dumps(records)) == records, "for workers that are spawned"
    with pytest.raises(IndexError):
        records[3]


def test_joined_and_selected_records(sound: dict, tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", sound)
    records, listed = load_box_records(NAME, path, tmp_path), load(path)
    both = JoinedRecords([records, listed])
    assert both == [*listed, *listed] and list(both[2:4]) == [listed[2], listed[0]]
    # image 3: two objects; 5: none; 7: one beside a crowd region
    assert count_objects(records).tolist() == count_objects(listed).tolist() == [2, 0, 1]
    assert count_objects(both).tolist() == [2, 0, 1] * 2
    assert are_wide(both) == [False, False, True] * 2
    some = selected(both, count_objects(both) > 0)
    assert some == [listed[0], listed[2]] * 2 and are_wide(some) == [False, True] * 2


def test_loaders_take_boxes_for_the_mapper_that_says_so_and_all_for_others(
    tiny: str, annotations: dict, register: Callable[..., str]
) -> None:
    for each in annotations["annotations"]:
        each["segmentation"] = [POLYGON]
    other = register(annotations, name="second_for_tests")
    assert all("segmentation" in a for record in load_dataset(other, complete=True) for a in record["annotations"])
    assert not any("segmentation" in a for record in load_dataset(other) for a in record["annotations"])
    seen = []

    def mapper(record: dict) -> dict:
        seen.extend("segmentation" in a for a in record["annotations"])
        return record

    options: dict[str, Any] = {"total_batch_size": 2, "num_workers": 0, "seed": 0, "filter_empty": True}
    next(iter(build_train_loader(dataset=other, mapper=mapper, **options)))
    assert seen and all(seen)
    loader = build_train_loader(dataset=[tiny, other], mapper=DetrMapper(augmentations=[], is_train=True), **options)
    assert len(loader.dataset) == 16 and len(next(iter(loader))) == 2
