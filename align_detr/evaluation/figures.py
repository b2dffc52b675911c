"""Pictures of a run: detections beside the ground truth; loss and AP over the iterations."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import nn

_TRUTH, _FOUND = "#2ca02c", "#d62728"
_SIDE, _WIDTH = 2.4, 15.0  # inches: least width of an image, greatest of a grid
_PIXELS = 90  # of an image per inch, at most


def draw_detections(
    model: nn.Module,
    records: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    path: Path,
    *,
    threshold: float = 0.3,
    columns: int | None = None,
) -> None:
    """Write a PNG grid: each image with its objects in green and the detections that score at least `threshold` in
    red. The wider the images, the fewer `columns` there are by default.

    Each record is a mapped input with `image` (3, h, w) uint8 RGB and `truth`, a list of (absolute xyxy box in pixels,
    class index).
    """
    height, width = (max(record["image"].shape[k] for record in records) for k in (1, 2))
    side = max(_SIDE, width / _PIXELS)
    figure, axes = _grid(len(records), columns or max(1, int(_WIDTH / side)), (side, side * height / width))
    model.eval()
    with torch.no_grad():
        outputs = [model([record])[0]["instances"].to("cpu") for record in records]
    for axis, record, detections in zip(axes, records, outputs, strict=False):
        axis.imshow(np.ascontiguousarray(record["image"].permute(1, 2, 0).numpy()))
        for box, label in record["truth"]:
            _draw_box(axis, box, names[label], _TRUTH, below=True)
        shown = detections[detections.scores >= threshold]
        for box, label, score in zip(
            shown.pred_boxes.tensor.tolist(), shown.pred_classes.tolist(), shown.scores.tolist(), strict=True
        ):
            _draw_box(axis, box, f"{names[label]} {score:.2f}", _FOUND, below=False)
    figure.suptitle(f"green: ground truth, red: detections with a score of at least {threshold}", fontsize=11)
    figure.savefig(path, dpi=110, bbox_inches="tight")


def draw_curves(metrics_file: Path, path: Path) -> None:
    """Write a PNG of the total training loss, the validation loss if there is one, AP and AP50 against iterations,
    from the metrics.json of a run; with several test sets, those of each.
    """
    rows = [json.loads(line) for line in metrics_file.read_text().splitlines()]
    figure = Figure(figsize=(10, 4))
    loss_axis, ap_axis = figure.subplots(1, 2)
    _plot(loss_axis, rows, "total_loss", "training loss")
    found = {key for row in rows for key in row}
    for axis, ending, label in [
        (loss_axis, "val_loss", "validation loss"),
        (ap_axis, "bbox/AP", "AP"),
        (ap_axis, "bbox/AP50", "AP50"),
    ]:
        for key in sorted(key for key in found if key == ending or key.endswith(f"/{ending}")):
            of_set = key.removesuffix(ending).rstrip("/")
            _plot(axis, rows, key, f"{label} of {of_set}" if of_set else label, marker="o")
    for axis, title in [(loss_axis, "loss"), (ap_axis, "held-out AP (0 to 100)")]:
        axis.set(title=title, xlabel="iteration")
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend()
    figure.savefig(path, dpi=110, bbox_inches="tight")


def _plot(axis: Any, rows: Sequence[Mapping[str, float | None]], key: str, label: str, **style: Any) -> None:
    points = [(row["iteration"], row[key]) for row in rows if row.get(key) is not None]  # null: not a number
    if points:
        axis.plot(*zip(*points, strict=True), label=label, **style)


def _grid(count: int, columns: int, size: tuple[float, float]) -> tuple[Figure, NDArray[np.object_]]:
    """Return a figure of `count` axes without frames, each of a width and height in inches."""
    rows = -(-count // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows + 0.4), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axis in axes:
        axis.axis("off")
    return figure, axes


def _draw_box(axis: Any, box: Sequence[float], text: str, color: str, *, below: bool) -> None:
    x0, y0, x1, y1 = box
    axis.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=color, linewidth=1.2))
    axis.text(
        x0,
        y1 if below else y0,
        text,
        color="white",
        fontsize=6,
        va="top" if below else "bottom",
        bbox=dict(facecolor=color, lw=0, pad=0.5),
    )
