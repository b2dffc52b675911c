"""DAB-DETR against Align-DAB-DETR at the size of a CPU.

    python benchmarks/dab_align.py [--seeds 1 2 3] [--jobs 2]

A small DAB-DETR on the built-in digits, from scratch, 4,500 iterations per run. `published` is the AP of the R50
versions on COCO after 50 epochs. Finished runs are kept: see studies.py.
"""

from studies import Study, Variant, main

STUDY = Study(
    name="dab_align",
    variants=(
        Variant("DAB-DETR", "quickstart/digits_dab_detr.py", published="42.2"),
        Variant("Align-DAB-DETR", "quickstart/digits_align_dab_detr.py", published="46.0"),
    ),
    overrides=("train.eval_period=1500",),
)

if __name__ == "__main__":
    main(STUDY)
