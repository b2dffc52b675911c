"""AP against iterations of DETR, TSP and Faster R-CNN.

    python benchmarks/convergence.py [--seeds 1 2 3] [--jobs 2]

Small versions of the four on the built-in digits, from scratch, with the same images, batch, iterations, kind of
optimizer and averaging of weights. Prints the table and draws output/studies/convergence.png. The TSP paper claims
faster convergence than DETR's. Finished runs are kept: see studies.py.
"""

from pathlib import Path

from studies import ROOT, Study, Variant, averages, curves_table, main

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


def draw(seeds: list[int], file: Path) -> None:
    """Draw one line per detector, the mean over the seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for variant in STUDY.variants:
        found = averages(STUDY, variant, seeds, PERIOD)
        if found:
            axes.plot(list(found), [sum(values) / len(values) for values in found.values()], "o-", label=variant.name)
    axes.set(xlabel="iterations of 8 images", ylabel="AP, held-out digits", ylim=(0, None))
    axes.legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    seeds = main(STUDY)
    print(curves_table(STUDY, seeds, PERIOD, ITERATIONS))
    if any(averages(STUDY, variant, seeds, PERIOD) for variant in STUDY.variants):
        draw(seeds, ROOT / "output" / "studies" / "convergence.png")
