"""The figures of a report as PNG files, for papers and READMEs."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from align_detr.report import panels
from align_detr.report.gallery_picture import draw_gallery
from align_detr.report.page import Section
from align_detr.report.plotting import SIZE, as_png, settings

_MOST = 3  # detectors in the overview
_CASES = 6  # in the picture of a gallery


def save_pictures(sections: Sequence[Section], report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write every panel, the overview and the misaligned cases of each detector into `folder`; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, content in _pictures(sections, report):
        files.append(folder / f"{name}.png")
        files[-1].write_bytes(content)
    return files


def _pictures(sections: Sequence[Section], report: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    yield "overview", _overview(report)
    for section in sections:
        yield from ((panel.key, panel.png) for panel in section.panels)
        for gallery in section.galleries:
            for k, (name, cases, _) in enumerate(gallery.of_detectors):
                if cases and gallery.key == "misaligned":
                    yield f"{gallery.key}_{k + 1}", draw_gallery(cases[:_CASES], f"{gallery.title}: {name}")


def _overview(report: Mapping[str, Any]) -> bytes:
    """Return the recall of best-regressed boxes and the densities of the first detectors, side by side."""
    detectors = report["detectors"]
    shown = [panels.recall_panel(detectors), *panels.density_panels(detectors[:_MOST])]
    with settings():
        figure = Figure(figsize=(SIZE[0] * len(shown), SIZE[1]), layout="constrained")
        for k, panel in enumerate(shown):
            axes = figure.add_subplot(1, len(shown), k + 1)
            panel.draw(axes)
            axes.set_title(panel.title, fontsize=11)
            if axes.get_legend_handles_labels()[0]:
                axes.legend()
        return as_png(figure)
