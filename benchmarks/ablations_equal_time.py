"""The ideas of ablations.py in the time of "k 3": fewer iterations, by what a step costs.

    python benchmarks/ablations_equal_time.py [--seeds 1 2 3] [--jobs 2] [--only NAME]

`COSTS` has the time of the processor per step beside "k 3", as `python benchmarks/ablation_costs.py` has measured it on
one thread; the high-order cost and the GIoU-aware focal loss cost nothing. Schedules, switches and the end of mixing
are shares of training, so they shrink with it. Runs are kept beside those of ablations.py, whose "k 3" is shown.
"""

from dataclasses import replace

from ablations import STUDY as EQUAL_ITERATIONS
from studies import Study, Variant, main

ITERATIONS = 1200  # of "k 3"
COSTS = {
    "k 3, position relations": 1.55,
    "k 3, distinct queries": 1.07,
    "k 3, DAC": 1.43,
    "k 3, instructive routes": 1.71,
    "k 3, dense data": 1.09,
    "k 3, distinct queries, dense data": 1.15,
}


def in_equal_time(variant: Variant) -> Variant:
    """Return a variant of as many iterations, in tens, as fit into the time of "k 3"."""
    iterations = round(ITERATIONS / COSTS[variant.name] / 10) * 10
    overrides = (*variant.overrides, f"train.max_iter={iterations}")
    return replace(variant, name=f"{variant.name}, equal time ({iterations})", overrides=overrides)


STUDY = Study(
    name=EQUAL_ITERATIONS.name,
    variants=(
        *(variant for variant in EQUAL_ITERATIONS.variants if variant.name == "k 3"),
        *(in_equal_time(variant) for variant in EQUAL_ITERATIONS.variants if variant.name in COSTS),
    ),
)

if __name__ == "__main__":
    main(STUDY)
