"""Time and memory of `align-detr validate` on an annotation file of COCO's size, without images.

    python benchmarks/validate.py [--images 118287] [--objects 860000] [--points 14] [--fix]

The file is made first: boxes inside images of 640x480, 80 classes, a polygon of `points` corners per object (COCO's
file has 448 MB). Prints the seconds of the processor and the peak memory of the whole command, and of reading the JSON
alone.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
READ_ALONE = "import json, sys; json.loads(open(sys.argv[1], 'rb').read())"


def write_file(path: Path, num_images: int, num_objects: int, points: int) -> None:
    """Write a sound annotation file with random boxes, piece by piece."""
    rng = np.random.default_rng(0)
    starts, sides = rng.uniform(0, 240, (num_objects, 2)).round(2), rng.uniform(4, 240, (num_objects, 2)).round(2)
    images, classes = rng.integers(1, num_images + 1, num_objects), rng.integers(1, 81, num_objects)
    corners = rng.uniform(0, 1, (num_objects, points, 2))
    with path.open("w") as file:
        entry = '{"id": %d, "file_name": "%012d.jpg", "width": 640, "height": 480}'
        file.write('{"images": [' + ", ".join(entry % (i, i) for i in range(1, num_images + 1)) + '], "annotations": [')
        for row in range(num_objects):
            polygon = (starts[row] + corners[row] * sides[row]).round(2).ravel().tolist()
            annotation = {
                "id": row + 1,
                "image_id": int(images[row]),
                "category_id": int(classes[row]),
                "bbox": [*starts[row].tolist(), *sides[row].tolist()],
                "area": float(sides[row].prod()),
                "iscrowd": 0,
                "segmentation": [polygon],
            }
            file.write(", " * (row > 0) + json.dumps(annotation))
        categories = [{"id": number, "name": f"class {number}"} for number in range(1, 81)]
        file.write(f'], "categories": {json.dumps(categories)}}}')


def measure(*command: str) -> tuple[float, float, int]:
    """Return seconds of the processor, peak memory in GiB and exit status of a Python process."""
    process = os.posix_spawn(sys.executable, [sys.executable, *command], {**os.environ, "PYTHONPATH": str(ROOT)})
    _, status, usage = os.wait4(process, 0)
    unit = 1 if sys.platform == "darwin" else 1024
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit / 2**30, os.waitstatus_to_exitcode(status)


def main() -> None:
    """Make the file, and print one line per command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=118_287)
    parser.add_argument("--objects", type=int, default=860_000)
    parser.add_argument("--points", type=int, default=14)
    parser.add_argument("--fix", action="store_true", help="write a cleaned copy, too")
    args = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "instances_train.json")
        write_file(path, args.images, args.objects, args.points)
        print(f"{args.images} images, {args.objects} objects, {path.stat().st_size / 1e6:.0f} MB", flush=True)
        validate = ("-m", "align_detr.cli.main", "validate", str(path), "--no-images")
        fix = ("--fix", str(Path(folder, "copy"))) if args.fix else ()
        for title, command in (("reading the JSON alone", ("-c", READ_ALONE, str(path))), ("validate", validate + fix)):
            seconds, memory, status = measure(*command)
            print(f"{title}: {seconds:.1f} s, {memory:.2f} GiB, exit status {status}", flush=True)


if __name__ == "__main__":
    main()
