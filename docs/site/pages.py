"""The pages of the site and their order: the repository's Markdown where it stands, and what is generated."""

import json
import os
import re
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# caption -> (title or "" for the page's own, page without ".md"); a page that does not exist yet is left out
NAVIGATION: dict[str, list[tuple[str, str]]] = {
    "Use": [
        ("Detect", "docs/inference"),
        ("Train on your own data", "docs/data"),
        ("Run a config: all settings", "docs/settings"),
        ("Fine-tune", "docs/weights"),
        ("Evaluate, compare, report", "docs/report"),
        ("Layers and training", "docs/layers"),
        ("Export", "docs/export"),
    ],
    "Notebooks": [
        ("How to run them", "docs/notebooks/README"),
        ("", "docs/notebooks/detect"),
        ("", "docs/notebooks/train"),
        ("", "docs/notebooks/new_loss"),
    ],
    "Build on it": [
        ("Use it in your detectron2 project", "docs/extending"),
        ("Losses and matching", "docs/losses"),
        ("Backbones", "docs/backbones"),
        ("Architecture", "docs/architecture"),
    ],
    "Train at size": [
        ("Several processes and machines", "docs/distributed"),
        ("Stopping and resuming", "docs/resuming"),
        ("Memory", "docs/memory"),
        ("Performance", "docs/performance"),
        ("Measurements", "benchmarks/RESULTS"),
    ],
    "Models": [("Model zoo", "zoo"), ("Published figures and weights", "docs/models"), ("Ablations", "docs/ablations")],
    "Ideas": [("", "docs/ideas"), ("", "docs/ideas/*"), ("", "projects/*/README")],
    "Reference": [("Every public name", "reference/index"), ("Commands", "reference/commands")],
    "Help": [
        ("Troubleshooting", "docs/troubleshooting"),
        ("Stability", "docs/stability"),
        ("Contributing", "CONTRIBUTING"),
        ("Changes", "CHANGELOG"),
        ("Data that comes along", "datasets/README"),
        ("", "datasets/*/README"),
    ],
}
KEPT = (
    "docs/*.md",
    "docs/notebooks/*.md",
    "docs/notebooks/*.ipynb",
    "docs/ideas/*.md",
    "projects/*/README.md",
    "benchmarks/RESULTS.md",
    "datasets/**/README.md",
)
AT_THE_TOP = ("CONTRIBUTING.md", "CHANGELOG.md")
LINK = re.compile(r"(\]\()([^)\s#]+)")
SHOWN = re.compile(r"^\[\w+\.py\]\((examples/\w+\.py)\)$", re.MULTILINE)  # a line of its own: the file is shown
CODE = re.compile(r"(^ *```.*?^ *```)", re.MULTILINE | re.DOTALL)
NOTEBOOK = ".ipynb"
WRITTEN = re.compile(r"%%writefile (\S+)\n")  # first line of a cell that writes its text into a file


def kept_pages() -> list[Path]:
    """Return the repository's pages that the site shows, relative to its root, without the README."""
    found = [path.relative_to(ROOT) for pattern in KEPT for path in sorted(ROOT.glob(pattern))]
    return [*found, *map(Path, AT_THE_TOP)]


def copy_pages(source: Path) -> None:
    """Copy the pages, and each file that they link to or show, into the folder `source`; the README is its index."""
    for page in kept_pages():
        text = relinked(page, source)
        if page.suffix == NOTEBOOK:
            text += f"\n[This page as a notebook]({page.name})\n"
        write(source / page.with_suffix(".md"), text)
        if page.suffix == NOTEBOOK:
            shutil.copyfile(ROOT / page, source / page)
    write(source / "index.md", relinked(Path("README.md"), source) + toctrees(source))
    shutil.copytree(ROOT / "docs" / "examples", source / "docs" / "examples", dirs_exist_ok=True)


def relinked(page: Path, source: Path) -> str:
    """Return a page's text with links to the README turned to the index, and to folders to their README.

    Other files that it links to are copied into the folder `source`.
    """

    def follow(match: re.Match[str]) -> str:
        link = match[2]
        if re.match(r"[a-z]+:", link):
            return match[0]
        target = Path(os.path.normpath(page.parent / link))
        if target == Path("README.md"):
            return match[1] + os.path.relpath("index.md", page.parent)
        if (ROOT / target).is_dir():
            target = target / "README.md"
        if target.suffix == NOTEBOOK:
            target = target.with_suffix(".md")
        elif target.suffix != ".md" and (ROOT / target).is_file():
            (source / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / target, source / target)
        return match[1] + os.path.relpath(target, page.parent)

    parts = CODE.split(text_of(ROOT / page))
    text = "".join(part if i % 2 else LINK.sub(follow, part) for i, part in enumerate(parts))
    return SHOWN.sub(lambda match: f"{match[0]}\n\n```{{literalinclude}} {match[1]}\n```", text)


def text_of(page: Path) -> str:
    """Return a page's Markdown; of a notebook, code is in blocks, below the name of the file that a cell writes."""
    text = page.read_text(encoding="utf-8")
    if page.suffix != NOTEBOOK:
        return text
    parts = []
    for cell in json.loads(text)["cells"]:
        part = "".join(cell["source"])
        if cell["cell_type"] == "code":
            file = WRITTEN.match(part)
            parts += [f"`{file[1]}`:"] if file else []
            part = f"```python\n{part[file.end() :] if file else part}\n```"
        parts.append(part)
    return "\n\n".join(parts) + "\n"


def toctrees(source: Path) -> str:
    """Return the navigation: one table of contents per caption, and one of the pages that no caption names."""
    shown: set[str] = set()
    blocks = []
    groups = {caption: expanded(entries, source) for caption, entries in NAVIGATION.items()}
    shown.update(name for entries in groups.values() for _, name in entries)
    others = [name for name in sorted(names_in(source) - shown - {"index"}) if not name.startswith("reference/")]
    groups["More"] = [("", name) for name in others]
    groups["Use"].insert(0, ("Start", "self"))
    for caption, entries in groups.items():
        lines = [f"{title} <{name}>" if title else name for title, name in entries]
        if lines:
            blocks.append("\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *lines, "```"]))
    return "\n\n" + "\n\n".join(blocks) + "\n"


def expanded(entries: list[tuple[str, str]], source: Path) -> list[tuple[str, str]]:
    """Return the entries whose pages are in `source`, patterns resolved, "index" pages first."""
    found = []
    for title, pattern in entries:
        names = [path.relative_to(source).with_suffix("").as_posix() for path in source.glob(f"{pattern}.md")]
        found += [(title, name) for name in sorted(names, key=lambda name: (not name.endswith("/index"), name))]
    return found


def names_in(source: Path) -> set[str]:
    """Return the names of all pages in the folder."""
    return {path.relative_to(source).with_suffix("").as_posix() for path in source.rglob("*.md")}


def write(path: Path, text: str) -> None:
    """Write a page and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
