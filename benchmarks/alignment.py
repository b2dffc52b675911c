"""Does Align-DINO do what the paper says? Every metric of a report, per decoder layer, over seeds.

    python benchmarks/alignment.py [bccd] [digits] [--seeds 1 2 3] [--jobs 2] [--samples 200] [--json FILE]
        [--draw FILE]

DINO against Align-DINO on blood cells (the runs of bccd.py) and on the digits (two rows of ablations.py); missing runs
are trained. Each run's layers are evaluated once and kept. A difference is the mean over the seeds; its interval is
that of a paired bootstrap over images, so it says nothing of the spread between seeds, which stands beside it.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ablations
import bccd
import studies
from omegaconf import OmegaConf
from studies import Study, Variant

from align_detr.analysis.bootstrap import Difference, compare
from align_detr.analysis.numbers import AllMetrics
from align_detr.analysis.reading import read_results
from align_detr.analysis.results import Metric, Results, Values
from align_detr.analysis.tables import Integers, Truth
from align_detr.engine.run import evaluate_only
from align_detr.evaluation.layers import FOLDER, layer_files
from align_detr.evaluation.misalignment import tables_of
from align_detr.evaluation.truth import read_truth
from align_detr.lazy_config import load_config

SHOWN = ("AP", "recall_best_regressed", "pearson", "oracle_gap", "ceiling_AP", "olrp", "lace", "duplicates_50")
DRAWN = {
    "AP": "AP",
    "recall_best_regressed": "recall of best-regressed",
    "pearson": "Pearson, score and IoU",
    "oracle_gap": "oracle gap (AP)",
    "olrp": "oLRP (less is better)",
    "lace": "LaECE (less is better)",
}
DIGITS = ("focal", "k 3")
COLORS = ("#0072b2", "#d55e00")
STUDIES = {
    "bccd": (bccd.STUDY, [variant.name for variant in bccd.STUDY.variants]),
    "digits": (ablations.STUDY, list(DIGITS)),
}


class MeanOfSeeds:
    """The mean over seeds of each overall metric."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.metrics = metrics

    def __call__(self, copies: Integers) -> Values:
        """Return the means for a set that has `copies` (I,) of each image."""
        values = [metric(copies).overall for metric in self.metrics]
        return Values({name: statistics.fmean(each[name] for each in values) for name in values[0]}, {})


def evaluate_run(study: Study, variant: Variant, seed: int) -> dict[int, Path]:
    """Return the results file of each layer of a finished run; evaluate it if that was not done."""
    folder = study.folder(variant, seed)
    files = layer_files(folder / "inference" / FOLDER)
    if not files:
        cfg = load_config(str(folder / "config.yaml"), [f"train.output_dir={folder}"])
        evaluate_only(cfg, checkpoint=str(folder / "weights.pth"), layers=True)
        files = layer_files(folder / "inference" / FOLDER)
    return files


def truth_of(study: Study, variant: Variant, seed: int) -> Truth:
    """Return the ground truth that a run was evaluated on."""
    config = OmegaConf.load(study.folder(variant, seed) / "config.yaml")
    return tables_of(read_truth(config.dataloader.test.dataset))


def analyse_study(name: str, seeds: Sequence[int], samples: int) -> list[dict[str, Any]]:
    """Return a row per layer: each variant's metrics per seed, and the difference of their means."""
    study, names = STUDIES[name]
    variants = [next(v for v in study.variants if v.name == wanted) for wanted in names]
    files = {(v.name, seed): evaluate_run(study, v, seed) for v in variants for seed in seeds}
    truth = truth_of(study, variants[0], seeds[0])
    rows = []
    for layer in next(iter(files.values())):
        metrics = {
            variant: [AllMetrics(Results(truth, read_results(files[variant, seed][layer], truth))) for seed in seeds]
            for variant in names
        }
        once = Results(truth, read_results(files[names[0], seeds[0]][layer], truth)).each_once
        values = {variant: [metric(once).overall for metric in each] for variant, each in metrics.items()}
        less, more = (MeanOfSeeds(metrics[variant]) for variant in names)
        found = compare(less, more, num_images=truth.num_images, samples=samples)
        rows.append({"study": name, "layer": layer, "values": values, "differences": found})
        print_row(rows[-1], names)
    return rows


def print_row(row: dict[str, Any], names: Sequence[str]) -> None:
    """Print a layer's table: means and ranges over seeds, difference and interval over images."""
    print(
        f"\n{row['study']}, layer {row['layer']}\n\n| metric | {' | '.join(names)} | difference | 95 % |\n|{'---|' * 5}"
    )
    for metric in SHOWN:
        cells = [_spread([each[metric] for each in row["values"][name]]) for name in names]
        difference: Difference = row["differences"][metric]
        interval = f"{difference.low:.3f} to {difference.high:.3f}"
        print(f"| {metric} | {' | '.join(cells)} | {difference.difference:+.3f} | {interval} |", flush=True)


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def draw(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Draw metrics by layer, one row of panels per study: a point per seed, a line through the means."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["study"] for row in rows))
    figure = Figure(figsize=(2.7 * len(DRAWN), 2.7 * len(names)), layout="constrained")
    panels = figure.subplots(len(names), len(DRAWN), squeeze=False)
    for name, of_study in zip(names, panels, strict=True):
        layers = [row for row in rows if row["study"] == name]
        at = [row["layer"] for row in layers]
        for (metric, title), axes in zip(DRAWN.items(), of_study, strict=True):
            for k, variant in enumerate(layers[0]["values"]):
                values = [[each[metric] for each in row["values"][variant]] for row in layers]
                axes.plot(at, values, "os"[k], color=COLORS[k], alpha=0.5, markersize=4)
                label = ("DINO", "Align-DINO")[k]
                axes.plot(at, [statistics.fmean(each) for each in values], color=COLORS[k], label=label)
            axes.set(title=f"{name}: {title}", xticks=at, xticklabels=["enc", *map(str, at[1:])])
            axes.title.set_fontsize(9)
    for axes in panels[-1]:
        axes.set_xlabel("decoder layer")
    panels[0, 0].legend()
    figure.savefig(file, dpi=90)


def main() -> None:
    """Make the missing runs, evaluate their layers and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"{' or '.join(STUDIES)} (default: both)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--samples", type=int, default=200, help="of the bootstrap")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--draw", type=Path, metavar="FILE", help="metrics by layer, as PNG")
    args = parser.parse_args()
    rows = []
    for name in args.studies or STUDIES:
        study, names = STUDIES[name]
        studies.main(study, ["--seeds", *map(str, args.seeds), "--jobs", str(args.jobs), "--only", *names])
        rows += analyse_study(name, args.seeds, args.samples)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1, default=vars) + "\n", encoding="utf-8")
    if args.draw:
        draw(rows, args.draw)


if __name__ == "__main__":
    main()
