"""Draw the matching of a photo's objects step by step: predictions, costs, one-to-one, and Align-DETR's k-to-one.

    python docs/figures/matching_steps.py [--weights output/demo/weights.pth] [--photo BloodImage_00323.jpg]

The detector is that of `make demo`, the photo one of its test photos. Both matchings are those of the library's matcher
on the same predictions, of the last layer that trains with copies: nothing but the copies differs.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from figure_files import add_weights, options, write
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from align_detr import Detector, model_zoo
from align_detr.cli.demo import CONFIGS, held_out
from align_detr.layers.boxes import cxcywh_to_xyxy
from align_detr.modeling import DETR, HungarianMatcher
from align_detr.report.plotting import LIGHT, color, settings
from align_detr.structures import MAIN, Match, Predictions, Targets

PHOTO = "BloodImage_00323.jpg"


@dataclass
class Steps:
    """The steps for one image with n objects and Q queries.

    image (h, w, 3) uint8; objects (n, 4) and boxes (Q, 4), absolute xyxy in pixels; names of the objects' classes;
    score (Q,), the largest probability of any class; cost (n, Q); one_to_one and copies: the pairs (query, object,
    weight) of either matching, of which the first have weight 1; k as configured.
    """

    image: np.ndarray
    objects: np.ndarray
    names: list[str]
    boxes: np.ndarray
    score: np.ndarray
    cost: np.ndarray
    one_to_one: list[tuple[int, int, float]]
    copies: list[tuple[int, int, float]]
    k: int


@torch.no_grad()
def steps_of(model: DETR, record: Mapping[str, Any], names: Sequence[str]) -> Steps:
    """Return the steps of an image: a mapped input with `image` (3, h, w) uint8 and `truth`, (absolute xyxy box, class)
    pairs in its pixels. The model has Align-DETR's copies and weighting.
    """
    height, width = record["image"].shape[-2:]
    boxes = np.array([box for box, _ in record["truth"]], dtype=np.float32).reshape(-1, 4)
    labels = [label for _, label in record["truth"]]
    instances = Instances((height, width), gt_boxes=Boxes(torch.from_numpy(boxes)), gt_classes=torch.tensor(labels))
    targets = model.targets([{**record, "instances": instances}])
    memory = model.encoder(model.extract_features([model.normalize(record["image"])]))
    preds, k = layer_with_copies(model, model.predict(memory)[MAIN])
    matcher: Any = model.criterion.matcher  # to nn.Module every attribute is a tensor or a module
    one = HungarianMatcher(costs=list(matcher.costs))({MAIN: preds}, targets)[MAIN]
    many = HungarianMatcher(costs=list(matcher.costs), copies={MAIN: k})({MAIN: preds}, targets)[MAIN]
    scale = torch.tensor([width, height, width, height])
    return Steps(
        image=record["image"].permute(1, 2, 0).numpy(),
        objects=boxes,
        names=[names[label] for label in labels],
        boxes=(cxcywh_to_xyxy(preds.boxes[0, 0].cpu()) * scale).numpy(),
        score=preds.logits[0, 0].sigmoid().amax(-1).cpu().numpy(),
        cost=matcher.own_costs(preds, targets)[0].cpu().numpy(),
        one_to_one=pairs_of(one),
        copies=pairs_of(weighted(model, preds, targets, many)),
        k=k,
    )


def layer_with_copies(model: DETR, preds: Predictions) -> tuple[Predictions, int]:
    """Return the predictions of the last layer that trains with copies, as a set of one row, and their number."""
    matcher: Any = model.criterion.matcher
    layer = max(i for i, k in enumerate(matcher.copies[MAIN]) if k > 1)
    rows = slice(layer, layer + 1)
    return dataclasses.replace(preds, logits=preds.logits[rows], boxes=preds.boxes[rows]), matcher.copies[MAIN][layer]


def weighted(model: DETR, preds: Predictions, targets: Targets, match: Match) -> Match:
    """Return the match with the prime-sample weights of the model's criterion."""
    criterion: Any = model.criterion
    return criterion.weighting(preds, targets, match)


def pairs_of(match: Match) -> list[tuple[int, int, float]]:
    """Return (query, object, weight) of each pair, by object."""
    weights = [1.0] * len(match) if match.weight is None else match.weight.tolist()
    return sorted(zip(match.query.tolist(), match.target.tolist(), weights, strict=True), key=lambda pair: pair[1])


def draw(steps: Steps) -> Figure:
    """Return the figure: a panel per step."""
    height, width = steps.image.shape[:2]
    with settings():
        figure = Figure(figsize=(9.2, 9.2 * height / width + 0.5), layout="constrained")
        axes = figure.subplots(2, 2).ravel()
        _draw_predictions(axes[0], steps)
        _draw_costs(axes[1], steps)
        title = f"3  one-to-one: {len(steps.one_to_one)} pairs of least total cost"
        _draw_pairs(axes[2], steps, steps.one_to_one, title)
        title = f"4  k = {steps.k}: each object {steps.k} times, weights by rank"
        _draw_pairs(axes[3], steps, steps.copies, title)
    return figure


def _photo(axes: Axes, steps: Steps, title: str) -> None:
    axes.imshow(steps.image)
    axes.set_title(title, fontsize=10.5, loc="left")
    axes.axis("off")


def _box(axes: Axes, box: np.ndarray, **style: Any) -> None:
    x0, y0, x1, y1 = box
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, **style))


def _draw_predictions(axes: Axes, steps: Steps) -> None:
    _photo(axes, steps, f"1  {len(steps.boxes)} queries predict boxes and scores")
    for box, score in zip(steps.boxes, steps.score, strict=True):
        _box(axes, box, edgecolor=LIGHT["ink"], linewidth=0.5 + 1.5 * score, alpha=float(min(1.0, 0.15 + score)))


def _draw_costs(axes: Axes, steps: Steps) -> None:
    """Draw the costs of the queries that either matching takes, by object; squares: one-to-one, dots: copies."""
    queries = list(dict.fromkeys(query for query, _, _ in [*steps.copies, *steps.one_to_one]))
    column = {query: k for k, query in enumerate(queries)}
    image = axes.imshow(steps.cost[:, queries], cmap="cividis_r", aspect="auto", interpolation="none")
    for query, target, _ in steps.copies:
        axes.plot(column[query], target, "o", color="white", markersize=5, markeredgecolor=LIGHT["ink"])
    for query, target, _ in steps.one_to_one:
        axes.plot(column[query], target, "s", color="none", markersize=10, markeredgecolor=LIGHT["d1"], mew=2)
    axes.grid(False)
    axes.set_yticks(range(len(steps.names)), [f"{name} {k + 1}" for k, name in enumerate(steps.names)], fontsize=8.5)
    for k, label in enumerate(axes.get_yticklabels()):
        label.set_color(color(k))
    axes.set_xticks(range(len(queries)), [str(query) for query in queries], fontsize=7, rotation=90)
    axes.set_xlabel("query", fontsize=9)
    axes.set_title("2  the cost of each for each object", fontsize=10.5, loc="left")
    axes.figure.colorbar(image, ax=axes, pad=0.02).ax.tick_params(labelsize=8)


def _draw_pairs(axes: Axes, steps: Steps, pairs: Sequence[tuple[int, int, float]], title: str) -> None:
    """Draw the objects dashed, and the queries matched to each in its colour, as wide as their weights."""
    _photo(axes, steps, title)
    for k, box in enumerate(steps.objects):
        _box(axes, box, edgecolor="white", linewidth=3.0)
        _box(axes, box, edgecolor=color(k), linewidth=1.2, linestyle=(0, (3, 2)))
    for query, target, weight in sorted(pairs, key=lambda pair: -pair[2]):
        style = {"linewidth": 0.8 + 1.7 * weight, "alpha": 0.5 + 0.5 * weight}
        _box(axes, steps.boxes[query], edgecolor=color(target), **style)


def main() -> None:
    """Write the figure."""
    parser = options(__doc__, "matching_steps.png")
    add_weights(parser)
    parser.add_argument("--photo", default=PHOTO, metavar="NAME", help=f"a test photo of the blood cells ({PHOTO})")
    args = parser.parse_args()
    cfg = model_zoo.get_config(CONFIGS["bccd"])
    detector = Detector(CONFIGS["bccd"], weights=args.weights, device="cpu")
    found = [x for x in held_out(cfg, count=1000) if x["file_name"].endswith(args.photo)]
    if not found:
        parser.error(f"{args.photo} is none of the test photos: name one of {cfg.dataloader.test.dataset}.")
    write(draw(steps_of(detector.model, found[0], detector.class_names)), args.out, dpi=95)


if __name__ == "__main__":
    main()
