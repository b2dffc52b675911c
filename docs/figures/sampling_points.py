"""Draw where the queries of the shipped digits detector look, layer by layer: references and sampling points.

    python docs/figures/sampling_points.py [--scene 11] [--out docs/figures/sampling_points.png]

The image is a scene of the built-in digits that no training sees; the locations and weights are those that the operator
is given while the detector predicts.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np
import torch
from figure_files import options, write
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from align_detr import Detector
from align_detr.data.digits_scene import SPLITS, load_sources, render_scene
from align_detr.layers import deformable_attention
from align_detr.layers.boxes import cxcywh_to_xyxy
from align_detr.modeling import DETR
from align_detr.report.plotting import color, settings
from align_detr.structures import MAIN

SCENE = 11
SHOWN = 3  # queries: those of the most confident detections


@dataclass
class Layer:
    """Where one decoder layer looks, in normalised coordinates: reference (Q, 4) cxcywh, from which it starts;
    locations (Q, H, L, P, 2) as (x, y) and weights (Q, H, L, P) of the sampling points; boxes (Q, 4) cxcywh and scores
    (Q,), which the layer predicts.
    """

    reference: Tensor
    locations: Tensor
    weights: Tensor
    boxes: Tensor
    scores: Tensor


@dataclass
class Recording:
    """What the operator was given, call by call, and the references of the decoder's layers."""

    samples: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    references: list[Tensor] = field(default_factory=list)


@contextmanager
def recorded(model: DETR) -> Iterator[Recording]:
    """Record every call of deformable attention, and the reference of each decoder layer."""
    found = Recording()
    operator = deformable_attention.deformable_attention

    def sample(value: Tensor, shapes: Any, locations: Tensor, weights: Tensor) -> Tensor:
        found.samples.append((locations, weights))
        return operator(value, shapes, locations, weights)

    def keep(layer: Any, arguments: Any) -> None:
        found.references.append(arguments[1].reference)  # x, place, memory

    decoder: Any = model.decoder
    handles = [layer.register_forward_pre_hook(keep) for layer in decoder.layers]
    try:
        with mock.patch.object(deformable_attention, "deformable_attention", sample):
            yield found
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def layers_of(model: DETR, image: Tensor) -> list[Layer]:
    """Return where each decoder layer looks in an image, (3, h, w) from 0 to 255, of a size that needs no padding."""
    model.eval()
    with recorded(model) as found:
        preds = model.predict(model.encoder(model.extract_features([model.normalize(image)])))[MAIN]
    samples = found.samples[-len(found.references) :]  # an encoder's come first
    scores = preds.logits.sigmoid().amax(-1)  # (R, B, Q)
    return [
        Layer(found.references[i][0], samples[i][0][0], samples[i][1][0], preds.boxes[i, 0], scores[i, 0])
        for i in range(len(samples))
    ]


def draw(image: np.ndarray, layers: Sequence[Layer], queries: Sequence[int]) -> Figure:
    """Return the figure: the image (h, w, 3) uint8 in a panel per layer, with what the `queries` look at."""
    with settings():
        figure = Figure(figsize=(3.1 * len(layers), 3.4), layout="constrained")
        for i, (axes, layer) in enumerate(zip(np.atleast_1d(figure.subplots(1, len(layers))), layers, strict=True)):
            axes.imshow(image)
            axes.set_title(f"decoder layer {i + 1}", fontsize=10.5)
            axes.axis("off")
            for k, query in enumerate(queries):
                _draw_query(axes, layer, query, color(k), image.shape[:2])
            axes.set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))
    return figure


def _draw_query(axes: Axes, layer: Layer, query: int, of_query: str, size: Sequence[int]) -> None:
    """Draw the reference in white dashes, the predicted box in the query's colour, and the points, whose areas are in
    proportion to their weights.
    """
    height, width = size
    for box, edge, line, dashes in (
        (layer.boxes[query], "white", 3.0, "-"),
        (layer.boxes[query], of_query, 1.8, "-"),
        (layer.reference[query], "white", 1.1, (0, (3, 2))),
    ):
        x0, y0, x1, y1 = (cxcywh_to_xyxy(box) * box.new_tensor([width, height, width, height])).tolist()
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=edge, lw=line, ls=dashes))
    x, y = (layer.locations[query].flatten(0, -2) * layer.locations.new_tensor([width, height])).T.numpy()
    areas = 260 * layer.weights[query].flatten().numpy()
    axes.scatter(x, y, areas, color=of_query, edgecolors="white", linewidths=0.4, alpha=0.8)


def scene(number: int) -> np.ndarray:
    """Return a scene of the held-out digits, (128, 128, 3) uint8."""
    return render_scene(np.random.default_rng([0, SPLITS.index("val"), number]), load_sources("val"))[0]


def main() -> None:
    """Write the figure."""
    parser = options(__doc__, "sampling_points.png")
    parser.add_argument("--scene", type=int, default=SCENE, help=f"number of the scene ({SCENE})")
    args = parser.parse_args()
    model = Detector("digits", device="cpu").model
    image = scene(args.scene)
    layers = layers_of(model, torch.from_numpy(image).permute(2, 0, 1))
    write(draw(image, layers, layers[-1].scores.topk(SHOWN).indices.tolist()), args.out)


if __name__ == "__main__":
    main()
