"""The paper's ablations at the size of a CPU.

    python benchmarks/ablations.py [--seeds 1 2 3] [--jobs 2] [--only NAME]

The demo's detector on the built-in digits, 1,200 iterations per run (about 2 minutes on 2 cores), with the same weight
for all class losses. `published` is the AP of the paper's DINO-R50 on COCO. Finished runs are kept: see studies.py.
"""

from studies import Study, Variant, main

BASE, MIXED = "ablations/digits_ia_bce.py", "ablations/digits_mixed.py"


def copies(k: int) -> tuple[str, str]:
    """Return the overrides for k copies among the proposals and in every layer but the last of the demo's three."""
    return f"model.criterion.matcher.copies.enc={k}", f"model.criterion.matcher.copies.main=[{k},{k},1]"


def alpha(value: float) -> tuple[str, str]:
    """Return the overrides for the probability's exponent in the quality, of the class target and of the ranks."""
    return f"model.criterion.losses.0.alpha={value}", f"model.criterion.weighting.alpha={value}"


UNWEIGHTED = ("model.criterion.weighting=null",)

STUDY = Study(
    name="ablations",
    variants=(
        Variant("focal", "ablations/digits_focal.py", published="49.0"),
        Variant("QFL, gamma 2", "ablations/digits_qfl.py", published="47.6"),
        Variant("QFL, gamma 1", "ablations/digits_qfl.py", ("model.criterion.losses.0.gamma=1.0",), "48.6"),
        Variant("VFL", "ablations/digits_vfl.py", published="48.7"),
        Variant("newer Align loss", "ablations/digits_align.py"),
        Variant("IA-BCE, k 1", BASE, published="50.0"),
        Variant("DW, k 3", "ablations/digits_dw.py"),
        Variant("k 2, unweighted", MIXED, (*copies(2), *UNWEIGHTED), "49.6"),
        Variant("k 2", MIXED, copies(2), "50.1"),
        Variant("k 3, unweighted", MIXED, UNWEIGHTED, "49.7"),
        Variant("k 3", MIXED, published="50.2"),
        Variant("k 3, alpha 0", MIXED, alpha(0.0), "50.0"),
        Variant("k 3, alpha 0.5", MIXED, alpha(0.5), "49.2"),
        Variant("k 3, alpha 0.75", MIXED, alpha(0.75), "47.6"),
        Variant("k 3, high-order cost", "ablations/digits_high_order.py"),
        Variant("k 3, GIoU-aware focal loss", "ablations/digits_giou_focal.py"),
        Variant("k 3, position relations", "ablations/digits_relation.py"),
        Variant("k 3, distinct queries", "ablations/digits_distinct.py"),
        Variant("k 3, DAC", "ablations/digits_dac.py"),
        Variant("k 3, instructive routes", "ablations/digits_mr.py"),
        Variant("k 3, dense data", "ablations/digits_dense.py"),
        Variant("k 3, distinct queries, position relations", "ablations/digits_distinct_relation.py"),
        Variant("k 3, distinct queries, dense data", "ablations/digits_distinct_dense.py"),
    ),
)

if __name__ == "__main__":
    main(STUDY)
