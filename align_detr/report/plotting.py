"""Panels: small matplotlib figures as inline SVG, whose colours follow the page's CSS variables, and as PNG.

matplotlib's objects are used without pyplot, which keeps state of the process.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

# name of a CSS variable -> (in light mode, in dark mode); the first six kinds after Okabe and Ito
COLORS = {
    "d0": ("#0072b2", "#56b4e9"),
    "d1": ("#d55e00", "#ff9248"),
    "d2": ("#007d5c", "#2fc79b"),
    "d3": ("#a6437f", "#e59ac4"),
    "d4": ("#8a6d00", "#e3c13b"),
    "d5": ("#52525b", "#b6b8c0"),
    "ink": ("#1d2026", "#e6e8ec"),
    "muted": ("#5b616b", "#a3a9b4"),
    "line": ("#d6d9de", "#3a3f48"),
    "paper": ("#fefefe", "#15181d"),
    "raised": ("#f4f5f7", "#1f232a"),
}
LIGHT = {name: pair[0] for name, pair in COLORS.items()}
_VARIABLES = {color: name for name, color in LIGHT.items()}
_KINDS = 6
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
_MARKERS = "osD^vP"
_HATCHES = ("", "///", "...", "\\\\\\", "xx", "--")
_SVG = "{http://www.w3.org/2000/svg}"
_XLINK = "{http://www.w3.org/1999/xlink}"
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "align-detr",  # equal bytes from equal numbers
    "font.family": "sans-serif",
    "font.size": 10.5,
    "text.color": LIGHT["ink"],
    "text.parse_math": False,
    "axes.edgecolor": LIGHT["muted"],
    "axes.labelcolor": LIGHT["ink"],
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": LIGHT["line"],
    "grid.linewidth": 0.6,
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["muted"],
    "xtick.labelcolor": LIGHT["ink"],
    "ytick.labelcolor": LIGHT["ink"],
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.9,
    "lines.markersize": 5.5,
    "hatch.linewidth": 0.7,
}
SIZE = (4.3, 3.3)  # inches: at 320 pixels of a phone the text is still read
_DPI = 160


@dataclass(frozen=True)
class Panel:
    """One small figure and what stands below it."""

    key: str
    """Name of the PNG file, and prefix of the ids in the SVG."""
    title: str
    caption: str
    draw: Callable[[Axes], None]
    """Draw into empty axes, within `settings`."""
    size: tuple[float, float] = SIZE

    @property
    def svg(self) -> str:
        """The panel as SVG to stand inside HTML, whose text has the title."""
        return self._forms[0]

    @property
    def png(self) -> bytes:
        """The panel as PNG in light colours, with its title."""
        return self._forms[1]

    @cached_property
    def _forms(self) -> tuple[str, bytes]:
        """Both forms of one figure: most of the time goes into its layout."""
        with settings():
            figure = Figure(figsize=self.size, layout="constrained")
            axes = figure.subplots()
            self.draw(axes)
            add_legend(figure, axes)
            title = figure.suptitle(label_of(self.title, 48), fontsize=11)
            png = as_png(figure)
            figure.set_layout_engine("none")
            below_title = title.get_window_extent().y0 / figure.bbox.height
            title.remove()
            file = BytesIO()
            figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        label = f"{self.title}. {self.caption}"
        return as_inline(file.getvalue(), prefix=self.key, label=label, height=below_title), png


@contextmanager
def settings() -> Iterator[None]:
    """Set the style of all figures for a while, in which letters that a font lacks are no warning."""
    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*missing")
        yield


def as_png(figure: Figure) -> bytes:
    """Return a figure as PNG, without version or date, so that equal numbers give equal bytes."""
    file = BytesIO()
    figure.savefig(file, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None})
    return file.getvalue()


def add_legend(figure: Figure, axes: Axes) -> None:
    """Put the labelled artists below the axes; the names may hold anything."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = 2 if len(labels) > 1 and max(map(len, labels)) <= 24 else 1
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def label_of(name: str, limit: int = 32) -> str:
    """Return a name for a figure: shortened, and without the leading underscore that hides a label in matplotlib."""
    short = name if len(name) <= limit else f"{name[: limit - 1]}…"
    return f"\N{WORD JOINER}{short}" if short.startswith("_") else short


def color(index: int) -> str:
    """Return the colour of the detector or kind `index`."""
    return LIGHT[f"d{index % _KINDS}"]


def line_style(index: int) -> dict[str, Any]:
    """Return colour, marker and dashes of a detector's line; the three differ for those who see no colours."""
    marker = _MARKERS[index % len(_MARKERS)]
    dashes = _DASHES[(index + index // _KINDS) % len(_DASHES)]
    return {"color": color(index), "linestyle": dashes, "marker": marker, "markeredgewidth": 0}


def bar_style(index: int) -> dict[str, Any]:
    """Return colour and hatching of a detector's bars."""
    hatch = _HATCHES[(index + index // _KINDS) % len(_HATCHES)]
    return {"facecolor": color(index), "edgecolor": LIGHT["paper"], "linewidth": 0.4, "hatch": hatch}


def in_percent(axis: Axis) -> None:
    """Label the ticks of an axis of shares in percent, with as many decimals as they need."""
    axis.set_major_formatter(FuncFormatter(lambda share, _: f"{round(100 * share, 6):g}\N{NO-BREAK SPACE}%"))


def offsets(number: int, width: float = 0.8) -> Sequence[float]:
    """Return the centres of `number` bars that share `width` around 0."""
    return [width * ((k + 0.5) / number - 0.5) for k in range(number)]


def as_inline(content: bytes, *, prefix: str, label: str, height: float = 1.0) -> str:
    """Return the lower part of matplotlib's SVG, a share `height` of it, as an element of an HTML page.

    Namespaces, metadata and the style for all elements go, known colours become CSS variables, and ids begin with
    `prefix`, as those of several panels would be equal.
    """
    root = ElementTree.fromstring(content)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        element.attrib = {key.replace(_XLINK, ""): _rewrite(key, value, prefix) for key, value in element.items()}
    left, top, width, whole = map(float, root.attrib["viewBox"].split())
    box = (left, top + (1 - height) * whole, width, height * whole)
    root.attrib = {"viewBox": " ".join(f"{value:.2f}" for value in box), "role": "img", "aria-label": label}
    for element in root.iter():
        element.tail = None
        if element.text is not None and not element.text.strip():
            element.text = None
    return ElementTree.tostring(root, encoding="unicode", method="html")


def _rewrite(key: str, value: str, prefix: str) -> str:
    """Return an attribute's value with prefixed ids and with variables for known colours."""
    if key == "id":
        return f"{prefix}-{value}"
    if key.endswith("href") and value.startswith("#"):
        return f"#{prefix}-{value[1:]}"
    value = re.sub(r"url\(#", f"url(#{prefix}-", value)
    return re.sub(r"#[0-9a-f]{6}\b", lambda hit: _variable(hit[0]), value)


def _variable(hexadecimal: str) -> str:
    name = _VARIABLES.get(hexadecimal)
    return hexadecimal if name is None else f"var(--{name})"
