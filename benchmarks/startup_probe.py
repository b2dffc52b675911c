"""One start, for `startup.py`: prints its figures as a line of JSON.

    python benchmarks/startup_probe.py {loader,detectron2,train} JSON_FILE [BARRIER_FOLDER]

loader: our training loader. detectron2: its own reader and loader. train: `train_net.py --data` until the first step.
With BARRIER_FOLDER two processes measure their memory at the same moments.
"""

import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

START, START_CPU = time.perf_counter(), time.process_time()
PROCESSES = 2


def memory() -> tuple[float, float]:
    """Return MB of this process's own memory (USS) and with its share of what is shared (PSS); 0 but on Linux."""
    try:
        text = Path("/proc/self/smaps_rollup").read_text()
    except OSError:
        return 0.0, 0.0
    own = sum(int(number) for number in re.findall(r"^Private_\w+: +(\d+)", text, re.MULTILINE))
    return own * 1024 / 1e6, int(re.findall(r"^Pss: +(\d+)", text, re.MULTILINE)[0]) * 1024 / 1e6


def peak() -> float:
    """Return the largest memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def wait_for_all(folder: str, step: str) -> None:
    """Wait until every process has come to a step."""
    if folder:
        Path(folder, f"{step}.{os.getpid()}").touch()
        while len(list(Path(folder).glob(f"{step}.*"))) < PROCESSES:
            time.sleep(0.01)


def build_ours(name: str) -> Any:
    """Return the records of our training loader."""
    from align_detr import data

    mapper = data.DetrMapper(augmentations=[], is_train=True)
    with data.datasets_read_once():
        data.count_training_images(name)
        loader = data.build_train_loader(dataset=name, mapper=mapper, total_batch_size=2, num_workers=0, seed=0)
    return loader.dataset.records  # type: ignore[attr-defined]


def build_detectron2(name: str) -> Any:
    """Return the records that detectron2's training loader serializes."""
    from detectron2.data import get_detection_dataset_dicts
    from detectron2.data.common import DatasetFromList

    return DatasetFromList(get_detection_dataset_dicts(name, filter_empty=False), copy=False)


def measure(build: Callable[[str], Any], file: Path, barrier: str) -> dict[str, float]:
    """Return time and memory until the loader stands, and what indexing all records adds."""
    from detectron2.data.datasets import register_coco_instances

    import align_detr.data  # noqa: F401  # both pay for the same imports

    register_coco_instances("startup", {}, str(file), str(file.parent))
    imported, imported_cpu = time.perf_counter(), time.process_time()
    wait_for_all(barrier, "imported")
    before = memory()
    wait_for_all(barrier, "measured")
    begin, begin_cpu = time.perf_counter(), time.process_time()
    records = build("startup")
    figures = {
        "imports, s": imported - START,
        "imports, processor s": imported_cpu - START_CPU,
        "clock, s": time.perf_counter() - begin,
        "processor, s": time.process_time() - begin_cpu,
        "peak, MB": peak(),
    }
    figures["a worker, MB"] = in_worker(records)
    index(records)
    wait_for_all(barrier, "indexed")
    after = memory()
    wait_for_all(barrier, "done")
    return {**figures, "a process, USS, MB": after[0] - before[0], "a process, PSS, MB": after[1] - before[1]}


def index(records: Any) -> None:
    """Ask for every record once."""
    for row in range(len(records)):
        records[row]


def in_worker(records: Any) -> float:
    """Return the MB of its own that indexing adds in a forked process."""
    read, write = os.pipe()
    if os.fork() == 0:
        at_fork = memory()[0]
        index(records)
        os.write(write, str(memory()[0] - at_fork).encode())
        os._exit(0)
    os.wait()
    return float(os.read(read, 99))


def train(file: Path) -> None:
    """Train a small detector on the folder of the file; after the first step, print the figures and end."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from align_detr.cli.train import main

    def stop(*_: object) -> None:
        figures = {"clock, s": time.perf_counter() - START, "processor, s": time.process_time() - START_CPU}
        print("\n" + json.dumps({**figures, "peak, MB": peak()}), flush=True)
        os._exit(0)

    register_optimizer_step_post_hook(stop)
    folder = file.parent.parent
    main(
        [
            *("--config-file", "quickstart/digits.py", "--data", str(folder), "train.max_iter=1"),
            *("dataloader.train.num_workers=0", "dataloader.train.total_batch_size=2"),
            f"train.output_dir={folder / 'output'}",
        ]
    )


if __name__ == "__main__":
    what, path, folder = sys.argv[1], Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else ""
    if what == "train":
        train(path)
    else:
        print(json.dumps(measure(build_ours if what == "loader" else build_detectron2, path, folder)))
