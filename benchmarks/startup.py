"""Time and memory from the start of Python until the training loader of a COCO-size annotation file stands.

    python benchmarks/startup.py [--short] [--repeats 3] [--before COMMIT] [--json FILE]

The file is made first, in a temporary folder that is removed: 118,287 images, 860,000 objects with polygons, 400 MB
(--short: a tenth). Of this checkout and, with --before, of a commit that `git worktree` checks out into that folder: a
cold start and a second one, in turn; and what a process and a worker have of their own after indexing every record once
(Linux: private memory, which shared pages are not). Imports are listed apart.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from validate import write_file

ROOT = Path(__file__).resolve().parents[1]
IMAGES, OBJECTS, POINTS = 118_287, 860_000, 20

PROBE = """
import json, os, re, resource, sys, time
start, cpu = time.perf_counter(), time.process_time()
def private():
    try:
        text = open('/proc/self/smaps_rollup').read()
    except OSError:
        return 0
    return sum(int(number) for number in re.findall(r'Private_\\w+: +(\\d+)', text)) / 1024
import align_detr.data as data
from detectron2.data.datasets import register_coco_instances
imported, cpu_imported, before = time.perf_counter(), time.process_time(), private()
register_coco_instances('startup', {}, sys.argv[1], os.path.dirname(sys.argv[1]))
mapper = data.DetrMapper(augmentations=[], is_train=True)
with data.datasets_read_once():
    data.count_training_images('startup')
    loader = data.build_train_loader(dataset='startup', mapper=mapper, total_batch_size=2, num_workers=0, seed=0)
unit = 1 if sys.platform == 'darwin' else 1024
result = {
    'imports, s': imported - start, 'imports, processor s': cpu_imported - cpu,
    'clock, s': time.perf_counter() - imported, 'processor, s': time.process_time() - cpu_imported,
    'peak, MB': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6,
}
def epoch():
    records = loader.dataset.records
    for index in range(len(records)):
        records[index]
read, write = os.pipe()
if os.fork() == 0:
    at_fork = private()
    epoch()
    os.write(write, str(private() - at_fork).encode())
    os._exit(0)
os.wait()
result['a worker, MB'] = float(os.read(read, 99))
epoch()
result['a process, MB'] = private() - before
print(json.dumps(result))
"""


def measure(checkout: Path, file: Path) -> dict[str, float]:
    """Return the figures of one start of a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "ALIGN_DETR_CACHE": str(file.parent / "user_cache")}
    command = [sys.executable, "-W", "ignore", "-c", PROBE, str(file)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def run(checkouts: dict[str, Path], file: Path, repeats: int) -> dict[str, list[dict[str, float]]]:
    """Return the figures of cold and second starts, in turn; a checkout without a cache has cold ones alone."""
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(repeats):
        for name, checkout in checkouts.items():
            shutil.rmtree(file.parent / ".align_detr_cache", ignore_errors=True)
            found.setdefault(f"{name}, cold", []).append(measure(checkout, file))
            if (file.parent / ".align_detr_cache").is_dir():
                found.setdefault(f"{name}, second start", []).append(measure(checkout, file))
    return found


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Return the medians, with smallest and largest value, as a Markdown table."""
    columns = list(next(iter(found.values()))[0])
    lines = ["| | " + " | ".join(columns) + " |", "|" + "---|" * (len(columns) + 1)]
    for name, rows in found.items():
        values = [[row[column] for row in rows] for column in columns]
        cells = [f"{statistics.median(v):.4g} ({min(v):.4g} to {max(v):.4g})" for v in values]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Make the file, start each checkout on it, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a tenth of the file, and one start of each kind")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--before", metavar="COMMIT", help="a commit to compare with")
    parser.add_argument("--json", type=Path, help="a file for the figures of every start")
    args = parser.parse_args()
    share = 10 if args.short else 1
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "annotations", "instances_train.json")
        file.parent.mkdir()
        write_file(file, IMAGES // share, OBJECTS // share, POINTS)
        print(f"{IMAGES // share} images, {OBJECTS // share} objects, {file.stat().st_size / 1e6:.0f} MB", flush=True)
        checkouts = {"this checkout": ROOT}
        worktree = ["git", "-C", str(ROOT), "worktree"]
        try:
            if args.before:
                checkouts = {args.before: Path(folder, "before"), **checkouts}
                subprocess.run([*worktree, "add", "-q", "--detach", f"{folder}/before", args.before], check=True)
            found: dict[str, Any] = run(checkouts, file, 1 if args.short else args.repeats)
        finally:
            if args.before:
                subprocess.run([*worktree, "remove", "--force", f"{folder}/before"], check=False)
    print(table(found))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
