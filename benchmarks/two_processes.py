"""The loss of two processes against that of one, with the same images and the same batch in all.

    OMP_NUM_THREADS=1 python benchmarks/two_processes.py [--iterations 200] [--norm NAME] [--output FOLDER]

The small DETR of `quickstart/digits_detr.py` trains on digits by `align-detr train`, once in one process with 8 images
per step and once in two (gloo, on the CPU) with 4 each. Both draw from the same stream: an image's place follows from
the seed of the data, its augmentation, in a worker process, from that seed and the place. The model has frozen batch
norms, no dropout and no noise for denoising: sums are added in another order, and nothing else differs. The config's
own batch norms (`--norm BN`) count the images of each process alone, and dropout and noise are drawn by each process:
with these the losses differ from the first step on. Prints losses and their difference, draws both curves.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import mean

import torch
from matplotlib.figure import Figure

from align_detr.cli.train import main as train_main
from align_detr.engine.run_state import WINDOW

BATCH = 8
CONFIG = """
from pathlib import Path
from align_detr import model_zoo
from align_detr.data.digits import DigitsSpec, register_digits
from detectron2.config import LazyCall as L
from detectron2.data import transforms as T

cfg = model_zoo.get_config("quickstart/digits_detr.py")
dataloader, lr_multiplier, model, optimizer, train = (
    cfg[key] for key in ("dataloader", "lr_multiplier", "model", "optimizer", "train")
)
model.backbone.norm = {norm!r}
register_digits("two_processes", DigitsSpec("train", 400), Path({cache!r}))
dataloader.test = dataloader.evaluator = None
dataloader.train.update(
    dataset="two_processes", total_batch_size={batch}, num_workers=1, seed=0, aspect_ratio_grouping=False
)
dataloader.train.mapper.augmentations = [L(T.RandomBrightness)(intensity_min=0.5, intensity_max=1.5)]
train.update(device="cpu", seed=0, max_iter={iterations}, log_period=0)
train.checkpointer.update(period={window}, max_to_keep=None)
"""


def losses(config: Path, output: Path, processes: int) -> list[float]:
    """Train in some processes; return the loss of each iteration, the mean over the processes.

    metrics.json has medians over WINDOW iterations; checkpoints have the numbers themselves.
    """
    status = train_main(["--config-file", str(config), "--num-gpus", str(processes), f"train.output_dir={output}"])
    if status:
        raise RuntimeError(f"Training in {processes} process(es) ends with status {status}: see its sentence.")
    found: dict[int, float] = {}
    for path in [*sorted(output.glob("model_0*.pth")), output / "model_final.pth"]:
        numbers = torch.load(path, weights_only=True)["run"]["numbers"]
        found |= {iteration: value for value, iteration in numbers["total_loss"]["values"]}
    return [found[iteration] for iteration in range(len(found))]


def table(one: list[float], two: list[float]) -> str:
    """Return the losses of the first iterations and of every tenth of all, as a Markdown table."""
    lines = ["| iteration | one process | two processes | relative difference |", "|---|---|---|---|"]
    shown = sorted({0, 1, 5, *range(WINDOW // 2, len(one), max(1, len(one) // 10)), len(one) - 1})
    for i in (i for i in shown if i < len(one)):
        lines.append(f"| {i} | {one[i]:.6f} | {two[i]:.6f} | {difference(one[i], two[i]):.1e} |")
    return "\n".join(lines)


def difference(one: float, two: float) -> float:
    """Return the difference of two losses over the first."""
    return abs(two - one) / abs(one)


def draw(one: list[float], two: list[float], file: Path) -> None:
    """Draw the two curves, and below them their difference."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(2, 1))
    above.plot(one, linewidth=3, color="0.7", label=f"one process, {BATCH} images per step")
    above.plot(two, linewidth=1, color="C0", label=f"two processes, {BATCH // 2} images each")
    above.set(ylabel="loss", ylim=(0, None))
    above.legend()
    below.semilogy([max(difference(*pair), 1e-9) for pair in zip(one, two, strict=True)], linewidth=1)
    below.set(xlabel="iteration", ylabel="relative difference")
    figure.savefig(file, dpi=120)


def main() -> int:
    """Train twice, print the table, write losses.json and losses.png into the output folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--norm", default="FrozenBN", help="of the backbone, by detectron2's names")
    parser.add_argument("--output", type=Path, default=Path("output/two_processes"), metavar="FOLDER")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="two-processes-") as name:
        folder = Path(name)
        values = dict(cache=str(folder / "data"), batch=BATCH)
        values |= dict(iterations=args.iterations, norm=args.norm, window=WINDOW)
        config = folder / "two_processes.py"
        config.write_text(CONFIG.format(**values), encoding="utf-8")
        one, two = (losses(config, folder / f"in_{count}", count) for count in (1, 2))
    (args.output / "losses.json").write_text(json.dumps({"one": one, "two": two}) + "\n", encoding="utf-8")
    draw(one, two, args.output / "losses.png")
    print(table(one, two))
    early = max(map(difference, one[:WINDOW], two[:WINDOW]))
    print(
        f"two_processes: largest relative difference of the first {WINDOW} steps {early:.1e}; mean loss of the last "
        f"{WINDOW}: {mean(one[-WINDOW:]):.4f} in one process, {mean(two[-WINDOW:]):.4f} in two"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
