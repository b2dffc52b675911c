"""Panels on misalignment: the paper's figures 1a, 1b and 4, and how scores and IoU agree."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm

from align_detr.report.metrics import count, counted, number
from align_detr.report.plotting import LIGHT, Panel, color, in_percent, label_of, line_style

Detector = Mapping[str, Any]
_LEAST_MARK, _MARK = 5.0, 55.0  # square points: of a bin without and with the most detections


def with_curve(detectors: Sequence[Detector], name: str) -> list[tuple[int, Detector]]:
    """Return place and detector of those that have a curve."""
    return [(k, each) for k, each in enumerate(detectors) if each["curves"].get(name)]


def recall_panel(detectors: Sequence[Detector]) -> Panel:
    """Return the recall of best-regressed boxes among the N, 2N, 3N ... most confident (the paper's figure 1a)."""

    def draw(axes: Axes) -> None:
        for k, detector in enumerate(detectors):
            curve = detector["curves"]["recall_best_regressed"]
            places = range(len(curve["multiples"]))
            axes.plot(places, _numbers(curve["values"]), label=label_of(detector["name"]), **line_style(k))
        multiples = detectors[0]["curves"]["recall_best_regressed"]["multiples"]
        axes.set_xticks(range(len(multiples)), [f"{multiple if multiple != 1 else ''}N" for multiple in multiples])
        axes.set(xlabel="most confident detections of the image", ylabel="best boxes among them")
        axes.set_ylim(0, 1)
        in_percent(axes.yaxis)

    return Panel(
        "recall_of_best_regressed",
        "Recall of best-regressed boxes",
        "Share of objects whose best box is among the N, 2N, 3N … most confident detections; N is the number of "
        "objects in the image. Higher is better aligned.",
        draw,
    )


def histogram_panels(detectors: Sequence[Detector]) -> list[Panel]:
    """Return one panel per detector with the IoU of best-regressed and most confident boxes (figure 1b)."""
    top = max(
        (value or 0 for each in detectors for kind in _KINDS for value in each["curves"]["iou_histogram"][kind]),
        default=0,
    )
    return [
        Panel(
            f"iou_histogram_{k + 1}",
            f"IoU of boxes: {detector['name']}",
            "Solid: the best box of each object. Dashed: the N most confident of each image. Where the dashed one lies "
            "further left, better boxes are passed over.",
            partial(_draw_histogram, detector["curves"]["iou_histogram"], top or 1),
        )
        for k, detector in with_curve(detectors, "iou_histogram")
    ]


_KINDS = {"best_regressed": "best-regressed", "most_confident": "most confident"}


def _draw_histogram(histogram: Mapping[str, Any], top: float, axes: Axes) -> None:
    for k, (kind, label) in enumerate(_KINDS.items()):
        style: dict[str, Any] = {"edgecolor": color(k), "linewidth": 1.9, "linestyle": ("-", (0, (4, 2)))[k]}
        values = _numbers(histogram[kind])
        axes.stairs(values, histogram["edges"], fill=True, facecolor=color(k), alpha=0.18)
        axes.stairs(values, histogram["edges"], label=label, **style)
    axes.set(xlabel="IoU with the object", ylabel="share of boxes", ylim=(0, 1.05 * top))
    in_percent(axes.yaxis)


def density_panels(detectors: Sequence[Detector]) -> list[Panel]:
    """Return one panel per detector with the density of score and IoU of matched detections (figure 4)."""
    panels = []
    for k, detector in with_curve(detectors, "score_iou"):
        curve, overall = detector["curves"]["score_iou"], detector["overall"]
        counts = np.asarray(curve["density"], dtype=np.float64)
        correlations = (
            f"Pearson {number(overall.get('pearson'), 3)}, Spearman {number(overall.get('spearman'), 3)}; "
            f"{counted(int(counts.sum()), 'matched detection')}, {count(int(counts.max(initial=0)))} in the brightest "
            "cell."
        )
        draw = partial(_draw_density, curve["edges"], counts)
        panels.append(Panel(f"score_iou_{k + 1}", f"Score and IoU: {detector['name']}", correlations, draw))
    return panels


def _draw_density(edges: Sequence[float], counts: np.ndarray, axes: Axes) -> None:
    extent = (edges[0], edges[-1], edges[0], edges[-1])
    axes.grid(False)
    axes.imshow(
        np.ma.masked_equal(counts, 0),
        origin="lower",
        extent=extent,
        cmap="cividis",
        norm=PowerNorm(0.5, vmin=0, vmax=max(1, counts.max(initial=0))),
        interpolation="none",  # SVG then holds one pixel per cell
        aspect="auto",
    )
    axes.plot(extent[:2], extent[2:], color=LIGHT["muted"], linestyle=(0, (3, 3)), linewidth=1)
    axes.set(xlabel="IoU with the object", ylabel="score", xlim=extent[:2], ylim=extent[2:])


def reliability_panels(detectors: Sequence[Detector]) -> list[Panel]:
    """Return one panel per detector: the mean IoU of the detections of each score, before and after isotonic."""
    return [
        Panel(
            f"reliability_{k + 1}",
            f"Reliability: {detector['name']}",
            "Mean IoU of the detections of a score, which should lie on the diagonal; the larger a mark, the more "
            "detections. Grey: their share, before recalibration.",
            partial(_draw_reliability, detector["curves"]["reliability"]),
        )
        for k, detector in with_curve(detectors, "reliability")
    ]


def _draw_reliability(curve: Mapping[str, Any], axes: Axes) -> None:
    counts = _numbers(curve["count"])
    shares = counts / max(1.0, np.nansum(counts))
    axes.stairs(shares, curve["edges"], fill=True, facecolor=LIGHT["line"])
    axes.plot([0, 1], [0, 1], color=LIGHT["muted"], linestyle=(0, (3, 3)), linewidth=1)
    for k, (label, points) in enumerate([("scores", curve), ("recalibrated", curve.get("recalibrated"))]):
        if points:
            columns = np.stack([_numbers(points[name]) for name in ("confidence", "quality", "count")])
            confidence, quality, number_of = columns[:, np.isfinite(columns).all(axis=0)]
            style = line_style(k)
            axes.plot(confidence, quality, color=style["color"], linestyle=style["linestyle"], linewidth=1)
            sizes = _LEAST_MARK + _MARK * number_of / max(1.0, number_of.max(initial=0))
            axes.scatter(confidence, quality, sizes, color=style["color"], marker=style["marker"], lw=0, label=label)
    axes.set(xlabel="score", ylabel="mean IoU", xlim=(0, 1), ylim=(0, 1))


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    """Return values as floats, NaN for null."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
