"""Time and memory from the start of Python until the training loader of a COCO-size annotation file stands.

    python benchmarks/startup.py [--short] [--repeats 3] [--before COMMIT] [--only NAME ...] [--json FILE]

The file is made first, in a temporary folder that is removed: 118,287 images, 860,000 objects with polygons, 400 MB
(--short: a tenth). Of this checkout and, with --before, of a commit that `git worktree` checks out into that folder, in
turn:

    loader      until the training loader stands: a cold start, a second one, and two second starts at once
    detectron2  the same by detectron2's own reader and loader
    train       `train_net.py --data FOLDER` with a small detector, imports included, until its first step is done

The memory of a worker and of a process is what data and the indexing of every record once have added (Linux): USS is
memory of its own, PSS has the process's share of what several share. Imports are listed apart but in "train".
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from startup_probe import PROCESSES
from validate import write_file

ROOT = Path(__file__).resolve().parents[1]
PROBE = Path(__file__).with_name("startup_probe.py")
IMAGES, OBJECTS, POINTS = 118_287, 860_000, 20
CACHE = ".align_detr_cache"
KINDS = ("loader", "train", "detectron2")

Figures = dict[str, float]


def start(checkout: Path, what: str, file: Path, *barrier: str) -> "subprocess.Popen[bytes]":
    """Start a process of a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "ALIGN_DETR_CACHE": str(file.parent / "user_cache")}
    command = [sys.executable, "-W", "ignore", str(PROBE), what, str(file), *barrier]
    return subprocess.Popen(command, cwd=checkout, env=environment, stdout=subprocess.PIPE)


def finish(process: "subprocess.Popen[bytes]", name: str) -> Figures:
    """Return the figures of a process, after it has ended."""
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"The start {name} has failed; its error stands above.")
    figures = json.loads(output.splitlines()[-1])
    print(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in figures.items()), file=sys.stderr, flush=True)
    return figures


def start_together(checkout: Path, file: Path, name: str) -> list[Figures]:
    """Return the figures of several second starts at once."""
    with tempfile.TemporaryDirectory() as barrier:
        processes = [start(checkout, "loader", file, barrier) for _ in range(PROCESSES)]
        return [finish(process, name) for process in processes]


def run(checkouts: dict[str, Path], file: Path, repeats: int, kinds: Sequence[str]) -> dict[str, list[Figures]]:
    """Return the figures of every start by its name; a checkout without a cache has cold starts alone."""
    found: dict[str, list[Figures]] = {}
    kept = file.parent / CACHE
    for _ in range(repeats):
        for what in kinds:
            for label, checkout in [("", ROOT)] if what == "detectron2" else checkouts.items():
                shutil.rmtree(kept, ignore_errors=True)
                name = " ".join(filter(None, (what, label)))
                first = f"{name}, every start" if what == "detectron2" else f"{name}, cold"
                found.setdefault(first, []).append(finish(start(checkout, what, file), first))
                if not kept.is_dir():
                    continue
                name_again, name_two = f"{name}, second start", f"{name}, {PROCESSES} at once"
                found.setdefault(name_again, []).append(finish(start(checkout, what, file), name_again))
                if what == "loader":
                    found.setdefault(name_two, []).extend(start_together(checkout, file, name_two))
    return found


def write_images(folder: Path, number: int) -> None:
    """Write the image files that the annotation file names: links to one photo."""
    folder.mkdir()
    Image.effect_noise((640, 480), 50).convert("RGB").save(folder / "noise.jpg")
    for image in range(1, number + 1):
        (folder / f"{image:012d}.jpg").symlink_to("noise.jpg")


def table(found: dict[str, list[Figures]]) -> str:
    """Return the medians, with smallest and largest value, as a Markdown table."""
    columns = list(dict.fromkeys(column for rows in found.values() for column in rows[0]))
    lines = ["| | " + " | ".join(columns) + " |", "|" + "---|" * (len(columns) + 1)]
    for name, rows in found.items():
        values = [[row[column] for row in rows if column in row] for column in columns]
        cells = [f"{statistics.median(v):.4g} ({min(v):.4g} to {max(v):.4g})" if v else "" for v in values]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Make the file, start each checkout on it, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a tenth of the file, and one start of each kind")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--before", metavar="COMMIT", help="a commit to compare with")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS, metavar="NAME", help=", ".join(KINDS))
    parser.add_argument("--folder", type=Path, help="keep the data there, and take what is there already")
    parser.add_argument("--json", type=Path, help="a file for the figures of every start")
    args = parser.parse_args()
    share = 10 if args.short else 1
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        file = folder / "annotations" / "instances_train.json"
        if not file.is_file():
            file.parent.mkdir(parents=True)
            write_images(folder / "train", IMAGES // share)
            write_images(folder / "val", 2)
            write_file(file.with_name("instances_val.json"), 2, 4, POINTS)
            write_file(file, IMAGES // share, OBJECTS // share, POINTS)
        print(f"{file.stat().st_size / 1e6:.0f} MB", flush=True)
        checkouts = {"": ROOT}
        worktree = ["git", "-C", str(ROOT), "worktree"]
        try:
            if args.before:
                checkouts[args.before] = Path(temporary, "before")
                subprocess.run([*worktree, "add", "-q", "--detach", f"{temporary}/before", args.before], check=True)
            found = run(checkouts, file, 1 if args.short else args.repeats, args.only)
        finally:
            if args.before:
                subprocess.run([*worktree, "remove", "--force", f"{temporary}/before"], check=False)
    print(table(found))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
