"""The reference: one page per package of public names, from `__all__`, signatures and docstrings; and the commands."""

import argparse
import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pages import write

from align_detr.cli.main import COMMANDS
from align_detr.projects.table import PROJECTS

# package or module -> title of its page; a name listed by several is described on the page of the longest
FACES = {
    "align_detr": "Everyday names",
    "align_detr.model_zoo": "Configs and models by name",
    "align_detr.structures": "Values that travel",
    "align_detr.modeling": "Parts of the detectors",
    "align_detr.modeling.meta_arch": "Detectors",
    "align_detr.modeling.losses": "Losses",
    "align_detr.modeling.matcher": "Costs and matcher",
    "align_detr.modeling.queries": "Queries",
    "align_detr.modeling.backbone": "Backbones",
    "align_detr.layers": "Layers",
    "align_detr.data": "Data",
    "align_detr.data.layouts": "Layouts of data sets",
    "align_detr.data.problems": "Problems of data sets",
    "align_detr.data.validation": "Validation of data sets",
    "align_detr.engine": "Training",
    "align_detr.evaluation": "Evaluation",
    "align_detr.analysis": "Analysis of results",
    "align_detr.report": "The report",
    "align_detr.inference": "Detections",
    "align_detr.inference.optimized": "Faster prediction",
    "align_detr.config": "Bridge from yacs configs",
    "align_detr.lazy_config": "Reading of configs",
    "align_detr.projects": "Projects",
    **{f"align_detr.projects.{name}": folder for name, folder in PROJECTS.items()},
}
SIMPLE = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class Public:
    """A public name: where it is imported from, the page that describes it, and the object."""

    home: str
    page: str
    name: str
    value: Any


def faces() -> dict[str, ModuleType]:
    """Return the packages and modules of FACES that exist."""
    found = {}
    for face in FACES:
        try:
            found[face] = importlib.import_module(face)
        except ModuleNotFoundError as error:
            if error.name != face:
                raise
    return found


def names_of(module: ModuleType) -> list[str]:
    """Return `__all__`, or the public classes and functions that the module defines."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [name for name, x in vars(module).items() if not name.startswith("_") and is_of(module, x)]


def is_of(module: ModuleType, value: object) -> bool:
    """Return whether a class or function is defined in the module."""
    return (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == module.__name__


def public_names() -> list[Public]:
    """Return every public name once: of equal objects, the shortest import path and the most special page."""
    modules = faces()
    found: dict[tuple[str, int], list[str]] = {}
    for face, module in modules.items():
        for name in names_of(module):
            if not inspect.ismodule(getattr(module, name)):
                found.setdefault((name, id(getattr(module, name))), []).append(face)
    return [
        Public(min(where, key=len), max(where, key=len), name, getattr(modules[where[0]], name))
        for (name, _), where in found.items()
    ]


def members(cls: type) -> dict[str, Any]:
    """Return the public methods and properties that a class defines itself; fields stand in the class's docstring."""
    fields = getattr(cls, "__dataclass_fields__", {})
    return {
        name: value
        for name, value in vars(cls).items()
        if not name.startswith("_")
        and name not in fields
        and isinstance(value, (property, classmethod, staticmethod, type(members)))
    }


def docstring(value: Any) -> str:
    """Return what is written on an object, or on the method that it overrides; "" where nothing is."""
    if isinstance(value, (*SIMPLE, dict, tuple, list)):
        return ""
    return inspect.getdoc(value) or ""


def undocumented(names: list[Public]) -> list[str]:
    """Return the public classes, functions, methods and properties without a docstring; values need none."""
    missing = []
    for x in names:
        described = inspect.isclass(x.value) or callable(x.value)
        own = vars(x.value).get("__doc__") if inspect.isclass(x.value) else docstring(x.value)
        if described and not own:
            missing.append(f"{x.home}.{x.name}")
        for name in members(x.value) if inspect.isclass(x.value) else ():
            if not inspect.getdoc(getattr(x.value, name)):
                missing.append(f"{x.home}.{x.name}.{name}")
    return missing


def default_text(value: object) -> str:
    """Return how a default is shown: simple values as they are, others as an ellipsis."""
    if isinstance(value, SIMPLE) or (isinstance(value, tuple) and all(isinstance(x, SIMPLE) for x in value)):
        return repr(value)
    return "..."


def signature(function: Callable[..., Any], *, bound: bool) -> str:
    """Return the arguments and the result, types without their modules; without the first argument if `bound`."""
    try:
        found = inspect.signature(function)
    except (TypeError, ValueError):
        return "()"
    parameters = list(found.parameters.values())[1 if bound else 0 :]
    parts, keywords = [], False
    for x in parameters:
        if x.kind is x.KEYWORD_ONLY and not keywords and not any(y.kind is y.VAR_POSITIONAL for y in parameters):
            parts.append("*")
            keywords = True
        sign = {x.VAR_POSITIONAL: "*", x.VAR_KEYWORD: "**"}.get(x.kind, "")
        text = sign + x.name + (f": {type_text(x.annotation)}" if x.annotation is not x.empty else "")
        parts.append(text + (f" = {default_text(x.default)}" if x.default is not x.empty else ""))
    result = "" if found.return_annotation in (found.empty, None) else f" -> {type_text(found.return_annotation)}"
    return f"({', '.join(parts)}){result}"


def type_text(annotation: object) -> str:
    """Return a type without the modules of its names."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=\w)", "", text.replace("'", ""))


def linked(text: str, links: dict[str, str], own: str) -> str:
    """Return a docstring as Markdown, with public names in backticks as links; paths of files stay as they are."""

    def link(match: re.Match[str]) -> str:
        name = match[1]
        return f"{{py:obj}}`{name} <{links[name]}>`" if name in links and name != own else match[0]

    return re.sub(r"(?<![`}])`(\w+)`(?!`)", link, text)


def describe(x: Public, links: dict[str, str]) -> str:
    """Return the entry of a name."""
    path, text = f"{x.home}.{x.name}", linked(docstring(x.value), links, x.name)
    if inspect.isclass(x.value):
        inner = [describe_member(name, value, links) for name, value in members(x.value).items()]
        bases = [b.__name__ for b in x.value.__bases__ if b.__module__.startswith("align_detr")]
        text = "\n\n".join([*([f"Base: {', '.join(f'`{b}`' for b in bases)}"] if bases else []), text, *inner])
        return entry("class", path + signature(x.value, bound=False), linked(text, links, x.name), depth=6)
    if callable(x.value):
        return entry("function", path + signature(x.value, bound=False), text, depth=6)
    value = repr(x.value)
    return entry("data", path, f"Value: `{value if len(value) < 200 else type(x.value).__name__}`", depth=6)


def describe_member(name: str, value: Any, links: dict[str, str]) -> str:
    """Return the entry of a method or property."""
    if isinstance(value, property):
        return entry("property", name, linked(inspect.getdoc(value) or "", links, name), depth=4)
    function = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
    kind = {classmethod: "classmethod", staticmethod: "staticmethod"}.get(type(value), "method")
    arguments = signature(function, bound=kind != "staticmethod")
    return entry(kind, name + arguments, linked(inspect.getdoc(function) or "", links, name), depth=4)


def entry(kind: str, head: str, text: str, *, depth: int) -> str:
    """Return one description of the Python domain, in Markdown."""
    fence = "`" * depth
    return f"{fence}{{py:{kind}}} {head}\n\n{text}\n{fence}"


def write_reference(source: Path) -> None:
    """Write the pages of all public names, of the commands, and their list into `source`/reference."""
    names, modules = public_names(), faces()
    missing = undocumented(names)
    if missing:
        raise SystemExit(f"Public names without a docstring: {', '.join(missing)}: write one.")
    links = {x.name: f"{x.home}.{x.name}" for x in names if inspect.isclass(x.value) or callable(x.value)}
    rows = []
    for face, module in modules.items():
        here = [x for x in names if x.page == face]
        title, head = FACES[face], linked(inspect.getdoc(module) or "", links, "")
        elsewhere = [x for x in names if x.page != face and x.name in names_of(module)]
        also = "Described with the part that they belong to: " + ", ".join(
            f"{{py:obj}}`{x.name} <{x.home}.{x.name}>`" for x in sorted(elsewhere, key=lambda x: x.name.lower())
        )
        entries = [describe(x, links) for x in sorted(here, key=lambda x: x.name.lower())]
        text = [f"# {title}", f"`{face}`", head, *([f"{also}."] if elsewhere else []), *entries]
        write(source / "reference" / f"{face}.md", "\n\n".join(text) + "\n")
        rows.append(f"| [{title}]({face}.md) | `{face}` | {len(here)} |")
    write(source / "reference" / "commands.md", commands())
    table = "\n".join(["| page | import from | names |", "|---|---|---|", *rows])
    intro = (
        f"{len(names)} public names, from their docstrings. [Stability](../docs/stability.md) says what they promise."
    )
    pages = "\n".join(["```{toctree}", ":hidden:", "", *modules, "```"])
    write(source / "reference" / "index.md", f"# Reference\n\n{intro}\n\n{table}\n\n{pages}\n")


def commands() -> str:
    """Return a page with the help of every subcommand, and of those that it has."""
    parts = ["# Commands", "What `align-detr SUBCOMMAND --help` prints."]
    for name, (module, line) in COMMANDS.items():
        parts.append(f"## align-detr {name}\n\n{line[:1].upper()}{line[1:]}.")
        parts += [f"```text\n{text}```" for text in helps(importlib.import_module(module).build_parser())]
    return "\n\n".join(parts) + "\n"


def helps(parser: argparse.ArgumentParser) -> list[str]:
    """Return the help of a parser, and of each of its subcommands."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    inner = [x for action in groups for x in action.choices.values()]
    return [parser.format_help(), *(text for x in inner for text in helps(x))]
