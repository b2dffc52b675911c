"""Small data sets in COCO's format, written and registered for one test."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from PIL import Image

CATEGORIES = [{"id": 1, "name": "cell"}, {"id": 5, "name": "star"}]
SIZES = [(40, 30), (30, 40), (64, 32), (32, 64), (50, 50), (40, 30), (30, 40), (64, 32), (32, 64), (50, 50)]


def write_image(path: Path, width: int, height: int, color: tuple[int, int, int] = (200, 30, 10)) -> None:
    Image.fromarray(np.full((height, width, 3), color, dtype=np.uint8)).save(path)


@pytest.fixture
def annotations() -> dict:
    """Return ten images: 1 is empty, 2 has only a crowd region, 3 a box without width, the others a box."""
    images = [{"id": i, "file_name": f"{i}.png", "width": w, "height": h} for i, (w, h) in enumerate(SIZES, start=1)]
    boxes = [
        {"id": i, "image_id": i, "category_id": 5 if i % 2 else 1, "bbox": [4, 5, 10, 12], "area": 120, "iscrowd": 0}
        for i in range(2, 11)
    ]
    boxes[0]["iscrowd"] = 1
    boxes[1]["bbox"] = [4, 5, 0, 12]
    return {"info": {}, "images": images, "annotations": boxes, "categories": CATEGORIES}


@pytest.fixture
def register(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Return a function (annotations, name, with_images) -> name of a registered data set; files in tmp_path / name."""
    names: list[str] = []

    def write(annotations: dict | str, name: str = "tiny_for_tests", with_images: bool = True) -> str:
        folder = tmp_path / name
        folder.mkdir()
        if with_images:
            (folder / "images").mkdir()
            for i, (width, height) in enumerate(SIZES, start=1):
                write_image(folder / "images" / f"{i}.png", width, height)
        text = annotations if isinstance(annotations, str) else json.dumps(annotations)
        (folder / "instances.json").write_text(text, encoding="utf-8")
        register_coco_instances(name, {}, str(folder / "instances.json"), str(folder / "images"))
        names.append(name)
        return name

    yield write
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture
def tiny(register: Callable[..., str], annotations: dict) -> str:
    """Register the ten-image data set of `annotations`, and return its name."""
    return register(annotations)
