"""The TSP paper's matching distillation: a DETR whose assignments are a trained DETR's, against one with its own.

    python benchmarks/matching_distillation.py [--seeds 1 2 3] [--jobs 2]

Trains the teacher, `quickstart/digits_detr.py` as it stands, unless its finished run is there; then the same detector
for 2,400 iterations, plainly and with the teacher's assignments. Prints the tables of AP, of AP after every 400
iterations, and of how many held-out objects change their query (docs/layers.md). Finished runs are kept: see
studies.py.
"""

from collections.abc import Sequence

import numpy as np
from studies import ROOT, Study, Variant, curves_table, main, mean_and_range

from align_detr.checkpoint.contents import WEIGHTS_FILE
from align_detr.engine.trained import load_trained
from align_detr.evaluation import build_evaluation_sets
from align_detr.evaluation.assignment_numbers import instability
from align_detr.evaluation.assignments import Assignments, record_assignments
from align_detr.lazy_config import load_config
from align_detr.structures import MAIN

ITERATIONS, PERIOD = 2400, 400
TEACHER = Study(name="matching_distillation_teacher", variants=(Variant("DETR", "quickstart/digits_detr.py"),))
TEACHER_SEED = 42
WEIGHTS = TEACHER.folder(TEACHER.variants[0], TEACHER_SEED).relative_to(ROOT) / WEIGHTS_FILE
STUDY = Study(
    name="matching_distillation",
    variants=(
        Variant("plain", "quickstart/digits_detr.py"),
        Variant("distilled", "TSP/detr_digits_distilled.py", (f"model.teacher={WEIGHTS}",)),
    ),
    overrides=(f"train.max_iter={ITERATIONS}", f"train.eval_period={PERIOD}"),
)


def assignments(study: Study, variant: Variant, seed: int) -> Assignments:
    """Return which queries the matcher gives to the held-out objects, by a finished run's own predictions."""
    cfg = load_config(variant.config, study.overrides_of(variant, seed))
    model, _ = load_trained(cfg, checkpoint=str(study.folder(variant, seed) / WEIGHTS_FILE))
    (held_out,) = build_evaluation_sets(cfg.dataloader, boxes=True)
    recorded = record_assignments(model, held_out.loader)
    assert recorded is not None  # this is the main process
    return recorded[MAIN]


def changes_table(seeds: Sequence[int]) -> str:
    """Return, as a Markdown table, the percentage of objects that change their query between successive layers, on
    average, and between a run's last layer and the teacher's.
    """
    teacher = assignments(TEACHER, TEACHER.variants[0], TEACHER_SEED)
    lines = ["| other queries, % of objects | between layers | than the teacher's |", "|---|---|---|"]
    rows = [("teacher", [teacher])]
    for variant in STUDY.variants:
        finished = [seed for seed in seeds if STUDY.result(variant, seed) is not None]
        rows.append((variant.name, [assignments(STUDY, variant, seed) for seed in finished]))
    for name, runs in rows:
        layers = [np.mean([_changed(x, k, x, k + 1) for k in range(x.layers - 1)]) for x in runs]
        to_teacher = [_changed(x, x.layers - 1, teacher, x.layers - 1) for x in runs]
        lines.append(f"| {name} | {mean_and_range(layers)} | {mean_and_range(to_teacher)} |")
    return "\n".join(lines)


def _changed(first: Assignments, layer: int, second: Assignments, other_layer: int) -> float:
    """Return the percentage of objects whose query differs between two layers."""
    return 100 * (instability(first.of_layer(layer), second.of_layer(other_layer))["objects"] or 0.0)


if __name__ == "__main__":
    main(TEACHER, ["--seeds", str(TEACHER_SEED), "--jobs", "1"])
    seeds = main(STUDY)
    print(curves_table(STUDY, seeds, PERIOD, ITERATIONS))
    print(changes_table(seeds))
