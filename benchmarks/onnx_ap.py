"""AP of an exported file against that of the detector that it was exported from, on annotated photos.

Both predict the same photos one at a time, each reads and resizes in its own way, and pycocotools evaluates both.
Run: python benchmarks/onnx_ap.py [--weights FILE] [--onnx FILE ...] [--data NAME] [--limit N]
By default the digits' detector that comes with the package, on digits_val; without --onnx its weights are exported with
free sizes.
"""

import argparse
import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import align_detr.data  # noqa: F401  registers the data sets
from align_detr import Detector, OnnxDetector
from align_detr.cli.main import main as command
from align_detr.inference.found import Found


def average_precision(gt: COCO, images: Path, ids: list[int], predict: Callable[[Path], Found]) -> list[float]:
    """Return AP, AP50 and AP75, and the mean seconds per photo, of a detector's 100 best detections per photo.

    Classes are matched by their names, as the file of weights may know no category ids.
    """
    by_name = {category["name"]: category["id"] for category in gt.dataset["categories"]}
    results: list[dict[str, Any]] = []
    start = time.perf_counter()
    for each in ids:
        found = predict(images / gt.imgs[each]["file_name"])
        names = zip(found.to_coco(each), found.labels, strict=True)
        results += [{**result, "category_id": by_name[name]} for result, name in names]
    seconds = (time.perf_counter() - start) / len(ids)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(gt, gt.loadRes(results), "bbox")
        evaluation.params.imgIds = ids
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [*(100 * x for x in evaluation.stats[:3].tolist()), seconds]


def main() -> None:
    """Print a row per detector."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="digits", metavar="FILE")
    parser.add_argument("--onnx", nargs="+", default=[], metavar="FILE")
    parser.add_argument("--data", default="digits_val", metavar="NAME", help="registered data set with a COCO file")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N photos (default: all)")
    args = parser.parse_args()
    DatasetCatalog.get(args.data)  # makes a built-in data set at first use
    data = MetadataCatalog.get(args.data)
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO(data.json_file)
    ids = sorted(gt.imgs)[: args.limit]
    detectors: dict[str, Callable[[Path], Found]] = {"PyTorch": Detector(weights=args.weights, device="cpu").predict}
    with tempfile.TemporaryDirectory() as folder:
        files = args.onnx or [exported(args.weights, Path(folder) / "exported.onnx")]
        detectors |= {Path(file).name: OnnxDetector(file).predict for file in files}
        print(f"{len(ids)} photos\n\n| | AP | AP50 | AP75 | ms per photo |\n|---|---|---|---|---|")
        for name, predict in detectors.items():
            *numbers, seconds = average_precision(gt, Path(data.image_root), ids, predict)
            print(f"| {name} | {' | '.join(f'{x:.2f}' for x in numbers)} | {1000 * seconds:.0f} |", flush=True)


def exported(weights: str, file: Path) -> Path:
    """Export a detector with free sizes and return the file."""
    if command(["export", "--weights", weights, "--out", str(file), "--size", "dynamic", "--batch", "dynamic"]):
        raise SystemExit(1)
    return file


if __name__ == "__main__":
    main()
