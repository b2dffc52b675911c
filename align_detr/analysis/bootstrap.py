"""Differences of two detectors on the same images, with intervals by a paired bootstrap over images."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from align_detr.analysis.results import Metric
from align_detr.analysis.tables import Integers
from align_detr.cpus import usable_cpus

SAMPLES = 200
"""Samples of images; each end of an interval of 95 % has 5 of these beyond it."""

LEVEL = 0.95
"""Share of the samples that lie in an interval."""

FEW_IMAGES = 20
"""Below this number of images, samples are too much alike for an interval to be trusted."""

MOST_THREADS = 8
"""Threads that share the samples, on a machine that has CPUs for them."""


@dataclass(frozen=True)
class Difference:
    """The value of the second detector less that of the first.

    `low`, `high`: the interval that holds LEVEL of the samples' differences. It is NaN for a single image, and where
    more samples than it may leave out have no value (e.g. hold no large object). `undefined` is their number.
    """

    difference: float
    low: float
    high: float
    undefined: int

    @property
    def is_beyond_noise(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def compare(
    first: Metric, second: Metric, *, num_images: int, samples: int = SAMPLES, seed: int = 0
) -> dict[str, Difference]:
    """Return metric -> the difference of two detectors' overall values.

    A sample draws as many images as there are, with replacement, the same for both detectors. Threads share the
    samples; how many there are changes no number.
    """
    draw = np.random.default_rng(seed)
    whole = _differences(first, second, np.ones(num_images, dtype=np.int64))
    drawn = (
        np.bincount(draw.integers(num_images, size=num_images), minlength=num_images)
        for _ in range(samples if num_images > 1 else 0)
    )
    with ThreadPoolExecutor(min(usable_cpus(), MOST_THREADS)) as threads:
        found = list(threads.map(lambda copies: _differences(first, second, copies), drawn))
    return {name: _interval(value, np.array([sample[name] for sample in found])) for name, value in whole.items()}


def describe(metric: str, of: str, over: str, difference: Difference, num_images: int) -> str:
    """Return a sentence that says whether a difference is more than noise."""
    if np.isnan(difference.difference):
        return f"{metric} of {of} and {over} cannot be compared: one of them has none."
    way = "above" if difference.difference > 0 else "below"
    size = f"{metric} of {of} is {abs(difference.difference):.3g} {way} that of {over}"
    if difference.difference == 0:
        size = f"{metric} of {of} and {over} is the same"
    if np.isnan(difference.low):
        why = f"{difference.undefined:,} samples of the {num_images:,} images have no value"
        if not difference.undefined:
            why = "one image has none" if num_images == 1 else "no samples were drawn"
        return f"{size}; there is no interval, as {why}."
    interval = f"95 % interval {difference.low:.3g} to {difference.high:.3g}, {num_images:,} images"
    if num_images < FEW_IMAGES:
        return f"{size} ({interval}), but these are too few images to say whether that is more than noise."
    verdict = "more than noise" if difference.is_beyond_noise else "no more than noise"
    return f"{size} ({interval}): {verdict}."


def _differences(first: Metric, second: Metric, copies: Integers) -> dict[str, float]:
    less, values = first(copies).overall, second(copies).overall
    return {name: value - less[name] for name, value in values.items()}


def _interval(difference: float, samples: np.ndarray) -> Difference:
    values = samples[~np.isnan(samples)]
    undefined = len(samples) - len(values)
    if np.isnan(difference) or not len(values) or undefined > (1 - LEVEL) * len(samples):
        return Difference(difference, float("nan"), float("nan"), undefined)
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Difference(difference, float(low), float(high), undefined)
