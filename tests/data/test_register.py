"""Registration of data sets: of any annotations, and by config files that are loaded more than once."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from detectron2.data import MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from align_detr.data import load_dataset
from align_detr.data.annotations import Annotations
from align_detr.data.register import register
from align_detr.errors import ConfigError, DatasetError
from align_detr.lazy_config import load_config
from support.datasets import forgotten

NAMES = ("registered_for_tests", "function_for_tests")


@pytest.fixture(autouse=True)
def _forget_names() -> Iterator[None]:
    with forgotten(*NAMES):
        yield


def annotations_of(folder: Path, *names: str) -> Annotations:
    """Return one image with a box of each class."""
    return Annotations(
        images=[{"id": 1, "file_name": "a.png", "width": 9, "height": 9}],
        annotations=[
            {"id": k, "image_id": 1, "category_id": k, "bbox": [0, 0, k, 5]} for k in range(1, len(names) + 1)
        ],
        categories=[{"id": k, "name": name} for k, name in enumerate(names, start=1)],
        image_root=folder,
        source=folder / "labels",
    )


def test_annotations_are_registered_with_their_classes_and_replaced_by_others(tmp_path: Path) -> None:
    for names in (("red", "blue"), ("moon",), ("moon",)):
        register(NAMES[0], annotations_of(tmp_path, *names))
        (record,) = load_dataset(NAMES[0])
        assert record["file_name"] == str(tmp_path / "a.png")
        assert [a["category_id"] for a in record["annotations"]] == list(range(len(names)))
        assert MetadataCatalog.get(NAMES[0]).thing_classes == list(names)


def test_a_function_reads_when_the_data_set_is_loaded(tmp_path: Path) -> None:
    calls: list[int] = []
    register(NAMES[0], lambda: calls.append(1) or annotations_of(tmp_path, "red"))
    assert calls == []
    assert load_dataset(NAMES[0]) == load_dataset(NAMES[0]) and calls == [1, 1]


def test_the_image_folder_of_registered_annotations_is_checked(tmp_path: Path) -> None:
    register(NAMES[0], annotations_of(tmp_path / "absent", "red"))
    with pytest.raises(DatasetError, match=r"image folder .*absent.* does not exist"):
        load_dataset(NAMES[0])


def write_coco(folder: Path, *names: str) -> Path:
    content = annotations_of(folder, *names)
    path = folder / f"{'-'.join(names)}.json"
    tables = {"images": content.images, "annotations": content.annotations, "categories": content.categories}
    path.write_text(json.dumps(tables))
    return path


def write_config(folder: Path, json_file: Path) -> str:
    path = folder / "config.py"
    path.write_text(
        "from detectron2.data import DatasetCatalog\n"
        "from detectron2.data.datasets import register_coco_instances\n"
        f"register_coco_instances('{NAMES[0]}', {{}}, {str(json_file)!r}, {str(folder)!r})\n"
        "for split in ('test',):\n"
        f"    DatasetCatalog.register('{NAMES[1]}', lambda split=split: [])\n"
        "model = optimizer = lr_multiplier = train = dataloader = dict()\n"
    )
    return str(path)


def test_a_config_that_registers_data_is_loaded_again(tmp_path: Path) -> None:
    config = write_config(tmp_path, write_coco(tmp_path, "red", "blue"))
    load_config(config)
    assert len(load_dataset(NAMES[0])[0]["annotations"]) == 2
    load_config(config)
    write_config(tmp_path, write_coco(tmp_path, "moon"))
    load_config(config)
    assert len(load_dataset(NAMES[0])[0]["annotations"]) == 1
    assert MetadataCatalog.get(NAMES[0]).thing_classes == ["moon"]


def test_a_config_may_register_what_a_script_has_registered(tmp_path: Path) -> None:
    json_file = write_coco(tmp_path, "red")
    register_coco_instances(NAMES[0], {}, str(json_file), str(tmp_path))
    load_config(write_config(tmp_path, json_file))
    assert len(load_dataset(NAMES[0])) == 1


def test_a_config_may_not_take_a_name_that_is_in_use(tmp_path: Path) -> None:
    register_coco_instances(NAMES[0], {}, str(write_coco(tmp_path, "red")), str(tmp_path))
    with pytest.raises(ConfigError, match=rf"line 3: AssertionError: Dataset '{NAMES[0]}' is already registered!"):
        load_config(write_config(tmp_path, write_coco(tmp_path, "moon")))
    with pytest.raises(AssertionError, match="already registered"):  # outside of a config as ever
        register_coco_instances(NAMES[0], {}, "other.json", str(tmp_path))


def test_classes_of_the_metadata_that_are_not_those_of_the_file(tmp_path: Path) -> None:
    register_coco_instances(NAMES[0], {"thing_classes": ["blue"]}, str(write_coco(tmp_path, "red")), str(tmp_path))
    with pytest.raises(DatasetError, match=r"has the classes \['red'\] in .*red.json, but \['blue'\] in its metadata"):
        load_dataset(NAMES[0])
