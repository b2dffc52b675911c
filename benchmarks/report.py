"""Time and memory of the report's numbers on results of COCO's size, beside pycocotools alone.

    python benchmarks/report.py [--images 5000] [--detections 300] [--samples N]

Two results files are made first, of two detectors with the same boxes: DETR-like, a few boxes near each object and the
rest of low scores, in the second one with scores that follow the IoU better. Three processes read the files and
compute: pycocotools' AP of the first; the report's numbers of the first; those of both with their differences. The AP
must be the same. Prints, per process, seconds, seconds of the processor, and the peak memory.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from align_detr.analysis.bootstrap import SAMPLES

ROOT = Path(__file__).resolve().parents[1]
NUM_CLASSES, OBJECTS_PER_IMAGE = 80, 7.2
WIDTH, HEIGHT = 640, 480

PYCOCOTOOLS = """
import contextlib, io, json, sys
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
with contextlib.redirect_stdout(io.StringIO()):
    truth = COCO(sys.argv[1])
    evaluation = COCOeval(truth, truth.loadRes(sys.argv[2]), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
print(json.dumps([100 * value for value in evaluation.stats[:6].tolist()]))
"""
REPORT = """
import json, sys
from align_detr.analysis import analyse_files
numbers = analyse_files(sys.argv[1], sys.argv[3:], samples=int(sys.argv[2]))
overall = numbers["detectors"][0]["overall"]
print(json.dumps([overall[name] for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")]))
if numbers["differences"]:
    print(numbers["differences"][0]["sentence"], file=sys.stderr)
"""


@dataclass
class Objects:
    """Objects of all images: `image`, `label` (G,), `box` (G, 4)."""

    image: np.ndarray
    label: np.ndarray
    box: np.ndarray


def draw_objects(draw: np.random.Generator, num_images: int) -> Objects:
    """Draw objects: few images have many, an image has few classes, some classes are frequent, most objects small."""
    counts = draw.negative_binomial(1, 1 / (1 + OBJECTS_PER_IMAGE), num_images)
    image = np.repeat(np.arange(num_images), counts)
    frequency = 1 / np.arange(1, NUM_CLASSES + 1)
    of_image = draw.choice(NUM_CLASSES, (num_images, 3), p=frequency / frequency.sum())
    label = of_image[image, draw.integers(3, size=len(image))]
    side = np.exp(draw.normal(4, 0.9, len(image)))
    shape = np.exp(draw.normal(0, 0.4, len(image)))
    size = np.stack([side * shape, side / shape], axis=1).clip(4, [WIDTH, HEIGHT])
    return Objects(
        image, label, np.concatenate([draw.uniform(0, 1, size.shape) * ([WIDTH, HEIGHT] - size), size], axis=1)
    )


def write_truth(path: Path, draw: np.random.Generator, objects: Objects, num_images: int) -> None:
    """Write the annotation file; one in 100 objects is a crowd."""
    crowd = draw.random(len(objects.image)) < 0.01
    rows = zip(objects.image.tolist(), objects.label.tolist(), objects.box.tolist(), crowd.tolist(), strict=True)
    content = {
        "images": [{"id": number, "file_name": f"{number:012d}.jpg"} for number in range(num_images)],
        "categories": [{"id": number, "name": f"class {number}"} for number in range(NUM_CLASSES)],
        "annotations": [
            {"id": k, "image_id": i, "category_id": c, "bbox": b, "area": 0.7 * b[2] * b[3], "iscrowd": int(group)}
            for k, (i, c, b, group) in enumerate(rows, start=1)
        ],
    }
    path.write_text(json.dumps(content))


def write_results(folder: Path, draw: np.random.Generator, objects: Objects, num_images: int, count: int) -> None:
    """Write the results of both detectors, `count` detections per image."""
    image = np.repeat(np.arange(num_images), count)
    number = np.tile(np.arange(count), num_images)  # in the image
    start = np.searchsorted(objects.image, np.arange(num_images + 1))
    present = np.diff(start)[image]
    near = number < 6 * present  # six boxes per object, as far as they go
    of = start[image] + number % np.maximum(present, 1)
    of[~near] = 0
    turn = number // np.maximum(present, 1)  # 0 for the first box of each object
    noise = draw.normal(0, 1, (len(image), 4)) * (0.05 + 0.05 * np.minimum(turn, 5))[:, None]
    size = np.exp(draw.normal(4, 0.9, (len(image), 2))).clip(4, [WIDTH, HEIGHT])
    elsewhere = np.concatenate([draw.uniform(0, 1, size.shape) * ([WIDTH, HEIGHT] - size), size], axis=1)
    beside = objects.box[of] + noise * objects.box[of][:, [2, 3, 2, 3]]
    box = np.where(near[:, None], beside, elsewhere)
    box[:, 2:] = box[:, 2:].clip(1)
    label = np.where(
        near & (draw.random(len(image)) < 0.85), objects.label[of], draw.integers(NUM_CLASSES, size=len(image))
    )
    for name, share in (("first", 0.3), ("second", 0.6)):
        fit = np.exp(-5 * np.abs(noise).mean(axis=1))
        logit = np.where(near, 3 * share * (2 * fit - 1) - 1.2 * turn, -4.5) + draw.normal(0, 1 - share, len(image))
        score = (1 / (1 + np.exp(-logit))).astype(np.float32)
        columns = (image.tolist(), label.tolist(), box.astype(np.float32).tolist(), score.tolist())
        with (folder / f"{name}.json").open("w") as file:
            row = '{{"image_id": {}, "category_id": {}, "bbox": {}, "score": {}}}'
            file.write("[" + ", ".join(row.format(*values) for values in zip(*columns, strict=True)) + "]")


def measure(name: str, code: str, *arguments: object) -> list[float]:
    """Run a process of Python and print its figures; return what it printed."""
    command, start = [sys.executable, "-c", code, *map(str, arguments)], time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds, unit = time.perf_counter() - start, 1 if sys.platform == "darwin" else 1024
    if process.returncode:
        sys.exit(f"{name} ended with status {process.returncode}.")
    processor, memory = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit / 2**30
    print(f"{name:34} {seconds:8.1f} s  {processor:8.1f} s of the processor  {memory:6.2f} GiB", flush=True)
    return json.loads(printed)


def write(folder: Path, num_images: int, count: int) -> None:
    """Write ground truth and both results."""
    draw = np.random.default_rng(0)
    objects = draw_objects(draw, num_images)
    write_truth(folder / "truth.json", draw, objects, num_images)
    write_results(folder, draw, objects, num_images, count)
    print(f"{num_images} images, {len(objects.image)} boxes, {count} detections per image,", end=" ")


def main() -> None:
    """Make the files, and print one line per process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=300)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # in a process of its own, whose memory would count as that of the processes that are started after it
        maker = multiprocessing.get_context("spawn").Process(target=write, args=(folder, args.images, args.detections))
        maker.start()
        maker.join()
        if maker.exitcode:
            sys.exit(f"The files were not written (status {maker.exitcode}).")
        truth, first, second = (folder / f"{stem}.json" for stem in ("truth", "first", "second"))
        print(f"results files of {first.stat().st_size / 1e6:.0f} MB each, {args.samples} samples", flush=True)
        expected = measure("pycocotools, one detector", PYCOCOTOOLS, truth, first)
        for name, files in {"report, one detector": [first], "report, two and differences": [first, second]}.items():
            found = measure(name, REPORT, truth, args.samples, *files)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
        print("AP, AP50, AP75, APs, APm, APl are equal: " + ", ".join(f"{value:.3f}" for value in expected))


if __name__ == "__main__":
    main()
