"""COCO's metrics of boxes by hotcoco, and by pycocotools, the reference: time and memory, the same numbers.

    python benchmarks/evaluation.py [--images 5000] [--detections 100] [--repeats 3] [--json FILE]

Synthetic data in the proportions of val2017: 80 classes, 7.2 objects and 100 detections per image, near objects and
off. Each library runs in a process of its own, from arrays to the metrics, as `DetectionEvaluator` calls it; memory is
the growth of the process's peak. The last line states the ratios.
"""

import argparse
import json
import multiprocessing
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np

from align_detr.evaluation.libraries import BoxColumns
from align_detr.evaluation.metrics import box_metrics

CLASSES = 80
OBJECTS_PER_IMAGE = 7.2


def draw(images: int, per_image: int) -> dict[str, Any]:
    """Return annotations and detections for `box_metrics`."""
    rng = np.random.default_rng(0)
    number = int(images * OBJECTS_PER_IMAGE)
    image, label = np.sort(rng.integers(images, size=number)), rng.integers(CLASSES, size=number)
    size = np.exp(rng.normal(4, 0.9, (number, 2))).clip(4, 400)
    box = np.c_[rng.uniform(0, 1, (number, 2)) * ([640, 480] - size), size]
    crowd = rng.random(number) < 0.01
    columns = (image + 1, label + 1, box, size.prod(axis=1) * 0.7, crowd.astype(int))
    annotations = [
        {"id": k, "image_id": i, "category_id": c, "bbox": b, "area": a, "iscrowd": w}
        for k, (i, c, b, a, w) in enumerate(zip(*(column.tolist() for column in columns), strict=True), start=1)
    ]
    of_image = np.repeat(np.arange(images), per_image)
    first, count = np.searchsorted(image, np.arange(images)), np.bincount(image, minlength=images)
    of = np.minimum(first[of_image] + (rng.random(len(of_image)) * count[of_image]).astype(int), number - 1)
    near = (rng.random(len(of_image)) < 0.4) & (count[of_image] > 0)
    moved = box[of] + rng.normal(0, 0.15, (len(of), 4)) * box[of][:, [2, 3, 2, 3]]
    elsewhere = np.c_[rng.uniform(0, 500, (len(of), 2)), np.exp(rng.normal(4, 0.9, (len(of), 2)))]
    detections = BoxColumns(
        image=of_image + 1,
        label=np.where(near & (rng.random(len(of)) < 0.8), label[of], rng.integers(CLASSES, size=len(of))),
        box=np.where(near[:, None], moved, elsewhere).clip(0.5),
        score=rng.random(len(of)) ** 3,
    )
    return {"num_images": images, "num_classes": CLASSES, "annotations": annotations, "detections": detections}


def measure(library: str, images: int, per_image: int, pipe: Any) -> None:
    """Send seconds, bytes and the metrics of one evaluation."""
    box_metrics(**draw(4, 10), max_detections=100, library=library)  # its imports
    task = draw(images, per_image)
    before, start = _peak(), time.perf_counter()
    found = box_metrics(**task, max_detections=100, library=library)
    pipe.send((time.perf_counter() - start, _peak() - before, found.summary, found.per_class))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def in_process(library: str, images: int, per_image: int) -> tuple[float, int, dict[str, float], list[float]]:
    """Return what `measure` sends from a new process."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(library, images, per_image, sender))
    process.start()
    result = receiver.recv()
    process.join()
    return result


def main() -> None:
    """Measure both libraries in turns, check that the numbers are equal, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100, help="per image")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    rows = []
    for _ in range(args.repeats):
        fast, reference = (in_process(name, args.images, args.detections) for name in ("hotcoco", "pycocotools"))
        np.testing.assert_array_equal(list(fast[2].values()), list(reference[2].values()))
        np.testing.assert_array_equal(fast[3], reference[3])
        rows.append({"hotcoco": fast[:2], "pycocotools": reference[:2]})
    print("| library | seconds | MB |\n|---|---|---|")
    for name in ("pycocotools", "hotcoco"):
        seconds, memory = ([row[name][k] for row in rows] for k in (0, 1))
        spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
        print(f"| {name} | {spread} | {max(memory) / 2**20:.0f} |")
    times = [row["pycocotools"][0] / row["hotcoco"][0] for row in rows]
    memories = [row["hotcoco"][1] / max(row["pycocotools"][1], 1) for row in rows]
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(f"{args.images} images, {args.images * args.detections} detections, the same numbers to the last bit.")
    print(f"evaluation: {min(times):.0f} to {max(times):.0f} times as fast, {max(memories):.2f} of the memory")


if __name__ == "__main__":
    main()
