"""The TSP paper's matching distillation: a DETR whose assignments are a trained DETR's, against one with its own.

    python benchmarks/matching_distillation.py [--seeds 1 2 3] [--jobs 2]

Trains the teacher, `quickstart/digits_detr.py` as it stands, unless its finished run is there; then the same detector
for 2,400 iterations, plainly and with the teacher's assignments. Prints the tables of AP and of AP after every 400
iterations. Finished runs are kept: see studies.py.
"""

from studies import ROOT, Study, Variant, curves_table, main

from align_detr.checkpoint.contents import WEIGHTS_FILE

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

if __name__ == "__main__":
    main(TEACHER, ["--seeds", str(TEACHER_SEED), "--jobs", "1"])
    seeds = main(STUDY)
    print(curves_table(STUDY, seeds, PERIOD, ITERATIONS))
