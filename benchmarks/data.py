"""The mapper on real photos: images per second on one core against detectron2's, and the pixels of both.

    python benchmarks/data.py [--data bccd FOLDER ...] [--images 96] [--repeats 5] [--short] [--json FILE]

Three mappers with DETR's augmentation (flip, short side 480 to 800, half of the time after resizing and a crop), from
the same seed: detectron2's DatasetMapper; DetrMapper by Pillow alone, as it was; DetrMapper. They take turns, and the
processor's time is measured, so that a busy machine slows all alike. Sizes and boxes of all are checked to be equal;
the last column is the mean difference of their pixels to detectron2's. FOLDER holds images/ and instances_train.json,
as datasets/bccd does.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.structures import BoxMode

from align_detr.data import DetrMapper, data_path

SIDES = list(range(480, 801, 32))
Mapper = Callable[[dict[str, Any]], dict[str, Any]]


def augmentations(crop: bool) -> list[T.Augmentation]:
    """Return DETR's augmentations at the sizes of COCO."""
    final = T.ResizeShortestEdge(SIDES, max_size=1333, sample_style="choice")
    before = [
        T.ResizeShortestEdge([400, 500, 600], sample_style="choice"),
        T.RandomCrop("absolute_range", (384, 600)),
    ]
    return [T.RandomFlip(), *(before if crop else ()), final]


class Detectron2Mapper:
    """detectron2's mapper with the choice between two lists of augmentations, drawn as DetrMapper draws it."""

    def __init__(self) -> None:
        self.plain, self.crop = (
            DatasetMapper(True, augmentations=augmentations(crop), image_format="RGB") for crop in (False, True)
        )

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        """Map a record."""
        return (self.crop if np.random.rand() < 0.5 else self.plain)(record)


def with_pillow(mapper: Mapper) -> Mapper:
    """Return a mapper whose images are decoded and transformed by Pillow and copied to planes."""

    def map_record(record: dict[str, Any]) -> dict[str, Any]:
        with (
            mock.patch("align_detr.data.images.decode_photo", lambda *_: None),
            mock.patch("align_detr.data.mapper.FastInput", T.AugInput),
            mock.patch(
                "align_detr.data.mapper.channels_first",
                lambda image: torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            ),
        ):
            return mapper(record)

    return map_record


def read_records(folder: Path, number: int) -> list[dict[str, Any]]:
    """Return records of the first images of a folder, with boxes as floats (detectron2 cuts whole numbers off)."""
    content = json.loads((folder / "instances_train.json").read_text())
    boxes: dict[int, list[dict[str, Any]]] = {}
    for a in content["annotations"]:
        box = {"bbox": [float(x) for x in a["bbox"]], "bbox_mode": BoxMode.XYWH_ABS, "category_id": a["category_id"]}
        boxes.setdefault(a["image_id"], []).append({**box, "iscrowd": a.get("iscrowd", 0)})
    return [
        {
            "file_name": str(folder / "images" / x["file_name"]),
            "width": x["width"],
            "height": x["height"],
            "annotations": boxes.get(x["id"], []),
        }
        for x in content["images"][:number]
    ]


def difference(mapper: Mapper, reference: Mapper, records: Sequence[dict[str, Any]]) -> float:
    """Return the mean difference of two mappers' pixels in grey levels, after a check of sizes and boxes."""
    found = []
    for seed, record in enumerate(records):
        results = []
        for each in (mapper, reference):
            np.random.seed(seed)
            results.append(each(record))
        ours, theirs = results
        assert ours["image"].shape == theirs["image"].shape, record["file_name"]
        assert torch.allclose(
            ours["instances"].gt_boxes.tensor, theirs["instances"].gt_boxes.tensor, rtol=0, atol=1e-3
        ), record["file_name"]
        found.append((ours["image"].int() - theirs["image"].int()).abs().float().mean().item())
    return statistics.mean(found)


def seconds(mapper: Mapper, records: Sequence[dict[str, Any]]) -> float:
    """Return the processor's time per image."""
    np.random.seed(0)
    start = time.process_time()
    for record in records:
        mapper(record)
    return (time.process_time() - start) / len(records)


def measure(folder: Path, number: int, repeats: int) -> list[dict[str, Any]]:
    """Return a row per mapper: images per second, ratio to detectron2's with its range, difference of pixels."""
    records = read_records(folder, number)
    ours = DetrMapper(augmentations=augmentations(False), augmentations_with_crop=augmentations(True), is_train=True)
    mappers: dict[str, Mapper] = {
        "detectron2": Detectron2Mapper(),
        "DetrMapper by Pillow": with_pillow(ours),
        "DetrMapper": ours,
    }
    times: dict[str, list[float]] = {name: [] for name in mappers}
    for turn in range(repeats + 1):
        for name, mapper in mappers.items():
            taken = seconds(mapper, records)
            if turn:  # the first is not counted
                times[name].append(taken)
    rows = []
    for name, mapper in mappers.items():
        ratios = [theirs / own for theirs, own in zip(times["detectron2"], times[name], strict=True)]
        rows.append(
            {
                "photos": folder.name,
                "mapper": name,
                "images_per_second": 1 / statistics.median(times[name]),
                "ratio": statistics.median(ratios),
                "range": [min(ratios), max(ratios)],
                "grey_levels": difference(mapper, mappers["detectron2"], records),
            }
        )
    return rows


def main() -> None:
    """Measure on each folder and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", type=Path, default=[Path(data_path("bccd"))], metavar="FOLDER")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--short", action="store_true", help="fewer images and repeats")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    number, repeats = (32, 3) if args.short else (args.images, args.repeats)
    rows = [row for folder in args.data for row in measure(folder, number, repeats)]
    print(
        "| photos | mapper | images/s, one core | detectron2's time / its time (range) | grey levels from detectron2 |"
    )
    print("|---|---|---|---|---|")
    for row in rows:
        low, high = row["range"]
        print(
            f"| {row['photos']} | {row['mapper']} | {row['images_per_second']:.0f} | "
            f"{row['ratio']:.2f} ({low:.2f} to {high:.2f}) | {row['grey_levels']:.4f} |"
        )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
