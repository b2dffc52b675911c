"""Latency of `Detector.predict` over the bare forward pass, and memory over many photos.

One photo of 640x480 pixels at a time. The forward pass gets the resized tensor; `predict` gets the photo as an array or
as a JPEG file. Passes alternate, so that a busy machine slows all alike, and medians are compared. What they detect is
equal. Run: python benchmarks/predict.py [--configs NAME ...] [--repeats N] [--photos N] [--device cuda] [--cpu-seconds]
"""

import argparse
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from align_detr import Detector
from align_detr.inference.detections import Detections

CONFIGS = ("quickstart/your_data.py", "dino/dino_r50_4scale_12ep.py")
MARKS = (200, 1000)  # photos after which memory is read


def photo(folder: Path) -> Path:
    """Write a JPEG of 640x480 pixels with coarse and fine structure."""
    draw = np.random.default_rng(0)
    coarse = Image.fromarray(draw.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((640, 480), Image.BICUBIC)
    noise = draw.integers(-12, 13, (480, 640, 3))
    path = folder / "photo.jpg"
    Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return path


def milliseconds(run: Callable[[], object], clock: Callable[[], float]) -> float:
    """Return the time of one call, with the device idle before and after."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = clock()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return 1000 * (clock() - start)


def latency(detector: Detector, path: Path, repeats: int, clock: Callable[[], float]) -> dict[str, float]:
    """Return the median of each way in milliseconds, after checking that all detect the same."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    (view,) = detector.test_view.views()
    tensor = view.image(pixels, "photo")
    inputs = [{"image": tensor, "height": 480, "width": 640}]

    def forward() -> Detections:
        with torch.no_grad():
            return detector.model(inputs)[0]["instances"]

    ways = {
        "forward": forward,
        "predict(array)": lambda: detector.predict(pixels),
        "predict(file)": lambda: detector.predict(path),
    }
    found = {name: run() for name, run in ways.items()}  # the first call of each, not timed
    for other in found.values():
        assert torch.equal(other.scores.cpu().sort().values, found["forward"].scores.cpu().sort().values)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, run in ways.items():
            times[name].append(milliseconds(run, clock))
    return {name: statistics.median(values) for name, values in times.items()}


def resident_mb() -> float:
    """Return this process's memory, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory(detector: Detector, path: Path, photos: int) -> dict[int, float]:
    """Return the process's memory after the number of photos in MARKS, or a fifth and all of fewer."""
    marks = MARKS if photos == MARKS[-1] else (photos // 5, photos)
    read = {}
    for number, _ in enumerate(detector.stream(repeat(path, photos)), start=1):
        if number in marks:
            read[number] = resident_mb()
    return read


def main() -> None:
    """Print latencies and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configs", nargs="*", default=CONFIGS, metavar="NAME", help="with random weights")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--photos", type=int, default=MARKS[-1], help="of the memory of the first config; 0: none")
    parser.add_argument("--device", default=None)
    parser.add_argument("--cpu-seconds", action="store_true", help="of the process, not the clock's: on a busy machine")
    args = parser.parse_args()
    logging.disable(logging.WARNING)  # the weights are random
    with tempfile.TemporaryDirectory() as folder:
        path = photo(Path(folder))
        for number, name in enumerate(args.configs):
            torch.manual_seed(0)
            detector = Detector(name, device=args.device)
            times = latency(detector, path, args.repeats, time.process_time if args.cpu_seconds else time.perf_counter)
            print(f"{name} on {detector.device}, {torch.get_num_threads()} threads:", flush=True)
            for way, value in times.items():
                print(f"  {way:<15}{value:10.1f} ms  {value / times['forward']:5.3f}x", flush=True)
            if number == 0 and args.photos:
                read = memory(detector, path, args.photos)
                print("  memory: " + ", ".join(f"{mb:.0f} MB after {count} photos" for count, mb in read.items()))


if __name__ == "__main__":
    main()
