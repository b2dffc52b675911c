"""DINO against Align-DINO on real photos at the size of a CPU.

    python benchmarks/bccd.py [--seeds 1 2 3] [--jobs 2]

A small DINO with a pretrained MobileNetV2 on blood cells, 600 iterations of 4 images per run, evaluated on the test
split without the images that share a scene with another split. Needs the data folder (ALIGN_DETR_DATA). `published` is
the AP of the R50 versions on COCO after 12 epochs. Finished runs are kept: see studies.py.
"""

from studies import Study, Variant, main

STUDY = Study(
    name="bccd",
    variants=(
        Variant("DINO", "quickstart/bccd_dino.py", published="49.0"),
        Variant("Align-DINO", "quickstart/bccd_align_dino.py", published="50.2"),
    ),
    overrides=("train.eval_period=0",),
)

if __name__ == "__main__":
    main(STUDY)
