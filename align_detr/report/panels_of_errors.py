"""Panels on errors: parts of oLRP, TIDE's error types, duplicates, precision and recall, decoder layers, training."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from align_detr.report.metrics import DUPLICATES, ERRORS, OLRP, metric_of
from align_detr.report.panels import with_curve
from align_detr.report.plotting import Panel, bar_style, in_percent, label_of, line_style, offsets

Detector = Mapping[str, Any]


def bars_panels(
    detectors: Sequence[Detector], metrics: Sequence[str], *, key: str, title: str, caption: str, axis: str
) -> list[Panel]:
    """Return a panel with a group of horizontal bars per metric, one bar per detector; [] if there is no such value."""
    if all(detector["overall"].get(name) is None for detector in detectors for name in metrics):
        return []
    labels = [metric_of(name).label for name in metrics]
    for prefix in ("oLRP ", "Error: ", "Duplicates "):
        labels = [label.removeprefix(prefix) for label in labels]

    def draw(axes: Axes) -> None:
        places = np.arange(len(metrics), dtype=np.float64)
        shifts = offsets(len(detectors))
        for k, detector in enumerate(detectors):
            values = [detector["overall"].get(name) or 0.0 for name in metrics]
            height = 0.8 / len(detectors)
            axes.barh(places + shifts[k], values, height, label=label_of(detector["name"]), **bar_style(k))
        axes.set_yticks(places, labels)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(axis)
        axes.invert_yaxis()
        if metric_of(metrics[0]).unit == "share":
            in_percent(axes.xaxis)

    size = (4.3, 1.5 + 0.34 * len(metrics) + 0.16 * len(detectors))
    return [Panel(key, title, f"{caption} Shorter is better.", draw, size)]


def olrp_panels(detectors: Sequence[Detector]) -> list[Panel]:
    """Return the three parts of oLRP of every detector."""
    return bars_panels(
        detectors,
        OLRP[1:],
        key="olrp_parts",
        title="Parts of oLRP",
        caption="At the best score threshold of each class.",
        axis="share (localization: 1 − IoU)",
    )


def error_panels(detectors: Sequence[Detector]) -> list[Panel]:
    """Return TIDE's error types of every detector."""
    return bars_panels(
        detectors,
        ERRORS,
        key="error_types",
        title="Where AP50 is lost",
        caption="AP50 that would be won if one type of error were corrected (TIDE).",
        axis="AP50 lost",
    )


def duplicate_panels(detectors: Sequence[Detector]) -> list[Panel]:
    """Return the duplicates of every detector."""
    return bars_panels(
        detectors,
        DUPLICATES,
        key="duplicates_per_object",
        title="Duplicates",
        caption="Detections per object beyond its first, at the recommended thresholds.",
        axis="duplicates per object",
    )


def precision_panels(detectors: Sequence[Detector]) -> list[Panel]:
    """Return the precision-recall curves at IoU .5 and .75."""
    return [
        Panel(
            f"precision_recall_{threshold}",
            f"Precision and recall at IoU .{threshold.rstrip('0')}",
            "Mean over classes; the area below is the AP at that threshold.",
            partial(_draw_precision, detectors, f"AP{threshold}"),
        )
        for threshold in ("50", "75")
        if with_curve(detectors, "precision_recall")
    ]


def _draw_precision(detectors: Sequence[Detector], which: str, axes: Axes) -> None:
    for k, detector in with_curve(detectors, "precision_recall"):
        curve = detector["curves"]["precision_recall"]
        style = line_style(k) | {"marker": None}
        values = [np.nan if value is None else value for value in curve[which]]
        axes.plot(curve["recall"], values, label=label_of(detector["name"]), **style)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))


_BETTER = {1: " Higher is better.", 0: "", -1: " Lower is better."}


def layer_panels(detectors: Sequence[Detector], metrics: Sequence[str]) -> list[Panel]:
    """Return one panel per metric with its values at the output of every decoder layer."""
    return [
        Panel(
            f"layers_{name}",
            f"{metric_of(name).label} by decoder layer",
            f"Every layer's output evaluated as if it were the last.{_BETTER[metric_of(name).better]}",
            partial(_draw_layers, detectors, name),
        )
        for name in metrics
        if any(layer.get(name) is not None for detector in detectors for layer in detector.get("layers") or ())
    ]


def _draw_layers(detectors: Sequence[Detector], name: str, axes: Axes) -> None:
    metric = metric_of(name)
    for k, detector in enumerate(detectors):
        layers = detector.get("layers") or ()
        values = [np.nan if layer.get(name) is None else layer[name] for layer in layers]
        if values:
            axes.plot(range(1, len(values) + 1), values, label=label_of(detector["name"]), **line_style(k))
    axes.set(xlabel="decoder layer", ylabel=metric.label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if metric.unit == "share":
        in_percent(axes.yaxis)


def training_panels(training: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """Return AP and AP50 over the iterations of trainings with several evaluations (the paper's figure A)."""
    return [
        Panel(
            f"training_{name}",
            f"{name} in training",
            f"{name} of the validation set at each evaluation.",
            partial(_draw_training, training, name),
        )
        for name in ("AP", "AP50")
        if any(sum(value is not None for value in run[name]) > 1 for run in training)
    ]


def _draw_training(training: Sequence[Mapping[str, Any]], name: str, axes: Axes) -> None:
    for k, run in enumerate(training):
        points = [pair for pair in zip(run["iterations"], run[name], strict=True) if pair[1] is not None]
        if points:
            axes.plot(*zip(*points, strict=True), label=label_of(run["name"]), **line_style(k))
    axes.set(xlabel="iteration", ylabel=name)
    axes.set_ylim(bottom=0)
