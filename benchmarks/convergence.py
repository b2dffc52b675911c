"""AP against iterations of DETR, TSP and Faster R-CNN.

    python benchmarks/convergence.py [--seeds 1 2 3] [--jobs 2]

Small versions of the four on the built-in digits, from scratch, with the same images, batch, iterations, kind of
optimizer and averaging of weights. Prints the table and draws output/studies/convergence.png. The TSP paper claims
faster convergence than DETR's. Finished runs are kept: see studies.py.
"""

from pathlib import Path

from studies import ROOT, Study, Variant, main, mean_and_range

ITERATIONS, PERIOD = 600, 200
STUDY = Study(
    name="convergence",
    variants=(
        Variant("DETR", "quickstart/digits_detr.py"),
        Variant("TSP-FCOS", "TSP/tsp_fcos_digits.py"),
        Variant("TSP-RCNN", "TSP/tsp_rcnn_digits.py"),
        Variant("Faster R-CNN", "FasterRCNN/faster_rcnn_digits.py"),
    ),
    overrides=(f"train.max_iter={ITERATIONS}", f"train.eval_period={PERIOD}"),
)


def averages(variant: Variant, seeds: list[int]) -> dict[int, list[float]]:
    """Return the AP of every finished run of a variant, by iteration."""
    found: dict[int, list[float]] = {}
    for curve in filter(None, (STUDY.curve(variant, seed) for seed in seeds)):
        for evaluation in curve:
            found.setdefault(round(evaluation["iteration"] / PERIOD) * PERIOD, []).append(evaluation["AP"])
    return found


def curves_table(seeds: list[int]) -> str:
    """Return the AP at every evaluation, mean and range, as a Markdown table."""
    steps = range(PERIOD, ITERATIONS + 1, PERIOD)
    lines = ["| AP after | " + " | ".join(map(str, steps)) + " |", "|" + "---|" * (len(steps) + 1)]
    for variant in STUDY.variants:
        found = averages(variant, seeds)
        lines.append(f"| {variant.name} | " + " | ".join(mean_and_range(found.get(step, [])) for step in steps) + " |")
    return "\n".join(lines)


def draw(seeds: list[int], file: Path) -> None:
    """Draw one line per detector, the mean over the seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for variant in STUDY.variants:
        found = averages(variant, seeds)
        if found:
            axes.plot(list(found), [sum(values) / len(values) for values in found.values()], "o-", label=variant.name)
    axes.set(xlabel="iterations of 8 images", ylabel="AP, held-out digits", ylim=(0, None))
    axes.legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    seeds = main(STUDY)
    print(curves_table(seeds))
    if any(averages(variant, seeds) for variant in STUDY.variants):
        draw(seeds, ROOT / "output" / "studies" / "convergence.png")
