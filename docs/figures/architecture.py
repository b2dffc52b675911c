"""Draw the architecture of detectors side by side: their parts, and what travels between them.

    python docs/figures/architecture.py [CONFIG ...] [--out docs/figures/architecture.png]

Everything is read off the built models (`data_flow.py`): names, classes, numbers of parameters, and the arrows from a
training step and a prediction of one image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from data_flow import DETECTIONS, IMAGES, LOSSES, OBJECTS, Arrow, Part, arrows_of, parts_of
from detectron2.config import instantiate
from figure_files import options, write
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from align_detr import model_zoo
from align_detr.report.plotting import LIGHT, settings

CONFIGS = ["detr/detr_r50_500ep.py", "align_detr/align_dino_r50_4scale_12ep.py"]
WIDTH, LANE, GAP, HEAD, LINE = 3.55, 0.2, 0.34, 0.24, 0.165  # inches: a box, a lane, between boxes, a title, a line
TRAINING = "#d55e00"  # of arrows that only training has


@dataclass(frozen=True)
class Diagram:
    """A detector's parts and the arrows between them."""

    title: str
    parts: list[Part]
    arrows: list[Arrow]


def diagram_of(name: str) -> Diagram:
    """Return the diagram of a config of the model zoo, with random weights."""
    model = instantiate(model_zoo.get_config(name).model)
    return Diagram(name, parts_of(model), arrows_of(model))


def draw(diagrams: Sequence[Diagram]) -> Figure:
    """Return the figure: a column per detector, parts of one role in one row."""
    roles = list(dict.fromkeys(part.role for part in sorted_by_flow(diagrams)))
    heights = {
        role: max(HEAD + LINE * len(part.lines) for d in diagrams for part in d.parts if part.role == role) + 0.08
        for role in roles
    }
    tops, top = {}, 0.75
    for role in roles:
        tops[role], top = top, top + heights[role] + GAP
    lanes = [lanes_of(d, roles) for d in diagrams]
    column = WIDTH + LANE * (max(map(len, lanes)) + 2.2)
    with settings():
        figure = Figure(figsize=(column * len(diagrams), top))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, column * len(diagrams)), ylim=(top, 0))
        axes.axis("off")
        for k, (diagram, of_column) in enumerate(zip(diagrams, lanes, strict=True)):
            left = column * k + 1.6 * LANE
            axes.text(left, 0.2, diagram.title, fontsize=10.5, weight="bold", va="center")
            _draw_column(axes, diagram, left, tops, heights, of_column)
    return figure


def sorted_by_flow(diagrams: Sequence[Diagram]) -> list[Part]:
    """Return the parts of all detectors, those of the one with most parts first."""
    return [part for d in sorted(diagrams, key=lambda d: -len(d.parts)) for part in d.parts]


def lanes_of(diagram: Diagram, roles: Sequence[str]) -> dict[str, list[Arrow]]:
    """Return the arrows that need a lane beside the boxes, by their source: all but those to the next box below."""
    own = [role for role in roles if role in {part.role for part in diagram.parts}]
    below = dict(pairwise(own))
    lanes: dict[str, list[Arrow]] = {}
    for arrow in diagram.arrows:
        if arrow.source in own and arrow.target in own and below.get(arrow.source) != arrow.target:
            lanes.setdefault(arrow.source, []).append(arrow)
    return lanes


def _draw_column(
    axes: Axes,
    diagram: Diagram,
    left: float,
    tops: Mapping[str, float],
    heights: Mapping[str, float],
    lanes: Mapping[str, Sequence[Arrow]],
) -> None:
    for part in diagram.parts:
        _draw_part(axes, part, left, tops[part.role], heights[part.role])
    in_lanes = {arrow for arrows in lanes.values() for arrow in arrows}
    for k, arrows in enumerate(lanes.values()):
        _draw_lane(axes, arrows, left + WIDTH, left + WIDTH + LANE * (k + 1), tops, heights)
    objects = [arrow for arrow in diagram.arrows if arrow.source == OBJECTS]
    _draw_objects(axes, objects, left, tops, heights)
    for arrow in diagram.arrows:
        if arrow not in in_lanes and arrow.source != OBJECTS:
            _draw_down(axes, arrow, left + WIDTH / 2, tops, heights)


def _draw_part(axes: Axes, part: Part, left: float, top: float, height: float) -> None:
    box = FancyBboxPatch(
        (left, top),
        WIDTH,
        height,
        boxstyle="round,pad=0,rounding_size=0.06",
        facecolor=LIGHT["raised"],
        edgecolor=LIGHT["muted"],
        linewidth=0.9,
    )
    axes.add_patch(box)
    y = top + HEAD / 2 + 0.03
    axes.text(left + 0.08, y, part.role, fontsize=9.5, weight="bold", va="center", color=LIGHT["d0"])
    axes.text(left + 1.13, y, part.kind, fontsize=9, va="center")
    if part.parameters:
        number = f"{part.parameters / 1e6:.2f} M"
        axes.text(left + WIDTH - 0.08, y, number, fontsize=8.5, va="center", ha="right", color=LIGHT["muted"])
    for i, line in enumerate(part.lines):
        axes.text(left + 0.18, top + HEAD + LINE * (i + 0.5), line, fontsize=7.8, va="center", color=LIGHT["ink"])


def _style(arrow: Arrow) -> dict[str, object]:
    """Return dashes for what only training has, and a colour that prints apart."""
    if arrow.training and not arrow.evaluation:
        return {"color": TRAINING, "linestyle": (0, (4, 2)), "linewidth": 1.2}
    return {"color": LIGHT["ink"], "linestyle": "-", "linewidth": 1.2}


def _tip(axes: Axes, x: float, y: float, dx: float, dy: float, style: Mapping[str, object]) -> None:
    axes.annotate(
        "", (x, y), (x - dx, y - dy), arrowprops={"arrowstyle": "-|>", "color": style["color"], "lw": 1.2, "shrinkB": 0}
    )


def _draw_down(axes: Axes, arrow: Arrow, x: float, tops: Mapping[str, float], heights: Mapping[str, float]) -> None:
    """Draw an arrow to the next box, or to or from an end."""
    style = _style(arrow)
    if arrow.source == IMAGES:
        start, stop, text = tops[arrow.target] - 0.3, tops[arrow.target], IMAGES
    elif arrow.target in (LOSSES, DETECTIONS):
        start = tops[arrow.source] + heights[arrow.source]
        stop, text = start + 0.22, arrow.target
    else:
        start, stop, text = tops[arrow.source] + heights[arrow.source], tops[arrow.target], arrow.what
    axes.plot([x, x], [start, stop - 0.06], **style)
    _tip(axes, x, stop, 0, 0.1, style)
    axes.text(x + 0.08, (start + stop) / 2, text, fontsize=8, va="center", color=str(style["color"]))


def _draw_lane(
    axes: Axes,
    arrows: Sequence[Arrow],
    edge: float,
    x: float,
    tops: Mapping[str, float],
    heights: Mapping[str, float],
) -> None:
    """Draw the arrows of one source at the right of the boxes: a trunk at x with a branch to each target."""
    source = arrows[0].source
    start = tops[source] + heights[source] * 0.75
    for arrow in arrows:
        style, stop = _style(arrow), tops[arrow.target] + HEAD / 2 + 0.02
        axes.plot([edge, x, x, edge + 0.06], [start, start, stop, stop], **style)
        _tip(axes, edge, stop, -0.1, 0, style)
    text = ", ".join(dict.fromkeys(name for arrow in arrows for name in arrow.what.split(", ")))
    middle = 0.72 * start + 0.28 * tops[arrows[0].target]
    axes.text(x + 0.03, middle, text, fontsize=8, rotation=90, va="center", ha="left", color=LIGHT["ink"])


def _draw_objects(
    axes: Axes, arrows: Sequence[Arrow], left: float, tops: Mapping[str, float], heights: Mapping[str, float]
) -> None:
    """Draw the arrows of the annotated objects at the left of the boxes."""
    x = left - LANE
    for arrow in arrows:
        style, stop = _style(arrow), tops[arrow.target] + HEAD / 2 + 0.02
        axes.plot([x, x, left - 0.06], [0.45, stop, stop], **style)
        _tip(axes, left, stop, 0.1, 0, style)
    if arrows:
        axes.text(x, 0.42, f"{OBJECTS} (training)", fontsize=8, color=TRAINING, va="bottom")


def main() -> None:
    """Write the figure."""
    parser = options(__doc__, "architecture.png")
    parser.add_argument("configs", nargs="*", default=CONFIGS, metavar="CONFIG", help="names of the model zoo")
    args = parser.parse_args()
    write(draw([diagram_of(name) for name in args.configs]), args.out)


if __name__ == "__main__":
    main()
