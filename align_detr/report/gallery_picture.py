"""The worst cases of a detector as one PNG, as the paper's figure B."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from align_detr.report.gallery import Case
from align_detr.report.plotting import as_png, label_of, settings

# kind -> (colour, dashes); the same as in page.css
STYLES: dict[str, tuple[str, Any]] = {
    "object": ("#ffffff", "-"),
    "best": ("#56b4e9", "-"),
    "confident": ("#ff9a1f", (0, (5, 2.5))),
}
_NAMES = {"object": "ground truth", "best": "best-regressed", "confident": "most confident"}
_COLUMNS = 3
_GREY = "#6b7280"


def draw_gallery(cases: Sequence[Case], title: str) -> bytes:
    """Return a grid of cases with their boxes and facts as PNG."""
    with settings():
        rows = -(-len(cases) // _COLUMNS)
        figure = Figure(figsize=(3.1 * _COLUMNS, 3.05 * rows + 0.8), layout="constrained")
        for k, case in enumerate(cases):
            axes = figure.add_subplot(rows, _COLUMNS, k + 1)
            x, y, width, height = case.window
            axes.set(xlim=(x, x + width), ylim=(y + height, y), xticks=[], yticks=[], facecolor=_GREY, aspect="equal")
            if case.photo is not None and case.place is not None:
                left, top, of_width, of_height = case.place
                axes.imshow(case.photo, extent=(left, left + of_width, top + of_height, top), zorder=0)
                axes.set(xlim=(x, x + width), ylim=(y + height, y))
            for drawn in case.boxes:
                left, top, *size = drawn.box
                edge, dashes = STYLES[drawn.kind]
                for color, line, style in (("black", 3.4, "-"), (edge, 1.8, dashes)):
                    axes.add_patch(Rectangle((left, top), *size, fill=False, ec=color, lw=line, linestyle=style))
            facts = [f"{drawn.name}: {', '.join(case.in_words(drawn))}" for drawn in case.listed]
            axes.set_title("\n".join([label_of(f"{case.label}: {case.note}", 40), *facts[-2:]]), fontsize=8)
        handles = [
            Line2D([], [], color="black" if kind == "object" else edge, linestyle=dashes, label=_NAMES[kind])
            for kind, (edge, dashes) in STYLES.items()
        ]
        handles[0].set_label("ground truth (white)")
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
        figure.suptitle(label_of(title, 80), fontsize=11)
        return as_png(figure)
