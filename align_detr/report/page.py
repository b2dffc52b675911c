"""The page: sections of figures, tables and cases, rendered by the template of the folder `page` into one HTML file."""

import base64
import hashlib
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from align_detr import __version__
from align_detr.report import metrics as m
from align_detr.report import panels, panels_of_errors, summary, tables
from align_detr.report.gallery import Case, add_photos, duplicate_cases, misaligned_cases, unmatched_cases
from align_detr.report.plotting import COLORS, Panel
from align_detr.report.tables import Table

Report = Mapping[str, Any]
TEMPLATES = Path(__file__).parent / "page"
_LAYER_METRICS = ("AP", "recall_best_regressed", "pearson", "oracle_gap", "olrp", "lace")
_LIBRARIES = ("numpy", "scikit-learn", "matplotlib", "jinja2")
_CASES = 36  # of one kind, over all detectors


@dataclass
class Gallery:
    """The cases of one kind, per detector."""

    key: str
    title: str
    text: str
    of_detectors: list[tuple[str, list[Case], int]]
    """Name, the cases shown, and how many there are."""


@dataclass
class Section:
    """One section of the page."""

    key: str
    title: str
    text: str = ""
    tables: list[Table] = field(default_factory=list)
    rows: list[list[Panel]] = field(default_factory=list)
    """Figures that stand side by side where there is room."""
    numbers: list[Table] = field(default_factory=list)
    """The numbers of the figures, folded."""
    galleries: list[Gallery] = field(default_factory=list)
    more: list[Table] = field(default_factory=list)
    """All other metrics, folded."""

    @property
    def panels(self) -> list[Panel]:
        """All figures."""
        return [panel for row in self.rows for panel in row]


def render(sections: Sequence[Section], report: Report, notes: Sequence[str]) -> str:
    """Return the page as HTML; `notes` are sentences on what could not be shown."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    script, style = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    shown = dict.fromkeys(name for each in report["detectors"] for name in each["overall"])
    return environment.get_template("page.html").render(
        title=summary.enumerated([each["name"] for each in report["detectors"]]),
        report=report,
        sections=sections,
        findings=summary.findings(report),
        advice=summary.advice(report),
        notes=notes,
        definitions=[m.metric_of(name) for name in m.in_order(shown) if m.metric_of(name).text],
        libraries=_versions(),
        colors=COLORS,
        count=m.count,
        svg=lambda panel: Markup(panel.svg),  # ElementTree has escaped its texts
        script=Markup(script),
        style=Markup(style),
        script_hash=f"sha256-{digest}",
    )


def build_sections(report: Report, images: Path | None) -> tuple[list[Section], list[str]]:
    """Return the sections in their order, and sentences on photos that could not be shown."""
    galleries = list(_galleries(report))
    cases = [case for gallery in galleries for _, listed, _ in gallery.of_detectors for case in listed]
    notes = []
    if images is not None and cases:
        notes = add_photos(cases, images)
    elif cases:
        notes = ["Without --images the boxes of the gallery stand alone, without their photos."]
    sections = [*_alignment(report), *_calibration(report), *_errors(report), *_training(report)]
    sections += [*_gallery_section(galleries), *_by_class_and_size(report)]
    return [section for section in sections if section.tables or section.panels or section.galleries], notes


def _alignment(report: Report) -> Iterator[Section]:
    detectors, numbers = report["detectors"], tables.curve_tables(report)
    yield _section(report, "ap", "Average precision", m.AP)
    yield _section(
        report,
        "alignment",
        "Best boxes and best scores",
        m.ALIGNMENT,
        text="A detector is aligned if the box that fits an object best is also the one with the highest score. N is "
        "the number of objects of an image.",
        rows=[
            [panels.recall_panel(detectors), *panels.histogram_panels(detectors)],
            panels.density_panels(detectors),
        ],
        numbers=[*numbers["recall_best_regressed"], *numbers["iou_histogram"]],
    )


def _calibration(report: Report) -> Iterator[Section]:
    detectors, numbers = report["detectors"], tables.curve_tables(report)
    yield _section(
        report,
        "calibration",
        "Calibration",
        m.CALIBRATION,
        text="Is the score the IoU that a box has? Before and after isotonic regression, which is fitted on one half "
        "of the images and applied to the other.",
        rows=[panels.reliability_panels(detectors)],
        numbers=numbers["reliability"],
    )


def _errors(report: Report) -> Iterator[Section]:
    detectors, numbers = report["detectors"], tables.curve_tables(report)
    yield _section(
        report,
        "olrp",
        "Recommended thresholds",
        m.OLRP,
        text="At one score threshold per class, false detections, misses and inexact boxes together are fewest (oLRP). "
        "The table of classes has the thresholds.",
        rows=[panels_of_errors.olrp_panels(detectors)],
    )
    yield _section(report, "errors", "Errors", m.ERRORS, rows=[panels_of_errors.error_panels(detectors)])
    yield _section(
        report, "duplicates", "Duplicates", m.DUPLICATES, rows=[panels_of_errors.duplicate_panels(detectors)]
    )
    yield Section(
        "precision",
        "Precision and recall",
        rows=[panels_of_errors.precision_panels(detectors)],
        numbers=numbers["precision_recall"],
    )
    unknown = m.in_order(name for each in detectors for name in each["overall"] if name not in m.METRICS)
    if unknown:
        yield _section(report, "further", "Further numbers", unknown)


def _training(report: Report) -> Iterator[Section]:
    main, others = (tables.layer_tables(report, names) for names in (_LAYER_METRICS, None))
    if main or others:
        yield Section(
            "layers",
            "Decoder layers",
            "Every decoder layer's output, evaluated as if it were the last.",
            tables=main,
            rows=[panels_of_errors.layer_panels(report["detectors"], _LAYER_METRICS)],
            more=others,
        )
    evaluations, curves = tables.training_tables(report), panels_of_errors.training_panels(report.get("training") or ())
    if curves:
        yield Section("training", "Training", rows=[curves], numbers=evaluations)
    else:
        yield Section("training", "Training", "One evaluation makes no curve.", tables=evaluations)


def _gallery_section(galleries: Sequence[Gallery]) -> Iterator[Section]:
    if any(listed for gallery in galleries for _, listed, _ in gallery.of_detectors):
        yield Section("gallery", "Gallery", galleries=list(galleries))


def _by_class_and_size(report: Report) -> Iterator[Section]:
    main, others = tables.class_tables(report)
    yield Section("classes", "Classes", tables=[main], more=[others] if others else [])
    sizes = tables.size_table(report)
    if sizes is not None:
        yield Section("sizes", "Object sizes", "Limits of COCO: 32 x 32 and 96 x 96 pixels.", tables=[sizes])


def _section(report: Report, key: str, title: str, names: Sequence[str], text: str = "", **parts: Any) -> Section:
    """Return a section that begins with the table of its metrics."""
    table = tables.metric_table(report, names)
    return Section(key, title, text, tables=[table] if table else [], **parts)


def _galleries(report: Report) -> Iterator[Gallery]:
    """Yield what the gallery shows: of each kind and detector the first cases, fewer if there are many detectors."""
    most = max(1, min(12, _CASES // len(report["detectors"])))
    for key, title, text, cases_of in (
        (
            "misaligned",
            "Misaligned",
            "The worst first: a box fits the object much better than the one with the highest score.",
            misaligned_cases,
        ),
        ("duplicates", "Duplicates", "Several detections of one object.", duplicate_cases),
        (
            "unmatched",
            "Confident, but no object",
            "Detections that overlap no object: false, or objects that nobody labelled.",
            unmatched_cases,
        ),
    ):
        listed = [(each["name"], each.get(key) or []) for each in report["detectors"]]
        if any(entries for _, entries in listed):
            shown = [(name, cases_of(entries[:most]), len(entries)) for name, entries in listed]
            yield Gallery(key, title, text, shown)


def _versions() -> list[tuple[str, str]]:
    """Return name and version of what made the page."""
    found = [("align_detr", __version__), ("Python", platform.python_version())]
    for name in _LIBRARIES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:  # installed without its metadata
            continue
    return found
