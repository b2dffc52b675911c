"""The import graph of the library and its projects: no circle, and no import of what lies above."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

from align_detr.projects import PROJECTS

ROOT = Path(__file__).resolve().parents[1]
PROJECT_PACKAGES = tuple(f"align_detr.projects.{name}" for name in PROJECTS)
BELOW_LAYERS = ("align_detr.errors", "align_detr.checks", "align_detr.layers")
ABOVE_MODELING = tuple(
    f"align_detr.{name}"
    for name in ("engine", "data", "cli", "config", "evaluation", "repack", "inference", "export", "detector")
)
BELOW_CHECKPOINT = ("align_detr.errors", "align_detr.paths", "align_detr.projects", "align_detr.checkpoint")
BELOW_ANALYSIS = ("align_detr.errors", "align_detr.cpus", "align_detr.analysis")


class Import(NamedTuple):
    """One import of a module by another; `typing` if only type checkers run it."""

    importer: str
    target: str
    line: int
    typing: bool

    def __str__(self) -> str:
        return f"{self.importer}, line {self.line}, imports {self.target}"


def modules_of(folder: Path, package: str) -> dict[str, Path]:
    """Return module -> file of the package `package` that lies in `folder`."""
    names = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        names[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return names


def imports_of(modules: dict[str, Path]) -> list[Import]:
    """Return the imports of `modules` among themselves, those inside functions too.

    A module that imports `a.b.c` from outside of `a.b` imports `a.b` as well, whose `__init__.py` runs first.
    """
    found = []
    for importer, path in modules.items():
        base = importer if path.name == "__init__.py" else importer.rpartition(".")[0]
        for node, typing in _import_nodes(ast.parse(path.read_text(encoding="utf-8"))):
            for name in _names(node, base):
                target = _longest_module(name, modules)
                for package in _packages_entered(importer, target):
                    found.append(Import(importer, package, node.lineno, typing))
    return found


def _import_nodes(node: ast.AST, typing: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, typing
        elif isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from _import_nodes(ast.Module(child.body, []), True)
            yield from _import_nodes(ast.Module(child.orelse, []), typing)
        else:
            yield from _import_nodes(child, typing)


def _names(node: ast.Import | ast.ImportFrom, base: str) -> list[str]:
    """Return the dotted names that a statement of a module in package `base` imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    above = base.split(".")[: len(base.split(".")) - (node.level - 1)] if node.level else []
    source = ".".join([*above, *([node.module] if node.module else [])])
    return [f"{source}.{alias.name}" for alias in node.names]


def _longest_module(name: str, modules: dict[str, Path]) -> str:
    """Return the module that `name` is or is defined in, or "" for another library's."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name


def _packages_entered(importer: str, target: str) -> Iterator[str]:
    """Yield `target` and those of its packages that `importer` is not part of."""
    if target:
        yield target
    package = target.rpartition(".")[0]
    while package and not is_in(importer, package):
        yield package
        package = package.rpartition(".")[0]


def is_in(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def circle(imports: list[Import]) -> list[str]:
    """Return the modules of one circle, the first again at the end; [] if there is none."""
    graph: dict[str, set[str]] = {}
    for x in imports:
        if not x.typing:
            graph.setdefault(x.importer, set()).add(x.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def from_layers_upwards(x: Import) -> bool:
    return is_in(x.importer, "align_detr.layers") and not is_in(x.target, *BELOW_LAYERS)


def from_structures_upwards(x: Import) -> bool:
    return x.importer == "align_detr.structures" and not is_in(x.target, *BELOW_LAYERS)


def from_modeling_upwards(x: Import) -> bool:
    return is_in(x.importer, "align_detr.modeling") and is_in(x.target, *ABOVE_MODELING)


def from_checkpoint_upwards(x: Import) -> bool:
    return is_in(x.importer, "align_detr.checkpoint") and not is_in(x.target, *BELOW_CHECKPOINT)


def from_analysis_elsewhere(x: Import) -> bool:
    return is_in(x.importer, "align_detr.analysis") and not is_in(x.target, *BELOW_ANALYSIS)


def from_library_to_project(x: Import) -> bool:
    return not is_in(x.importer, *PROJECT_PACKAGES) and is_in(x.target, *PROJECT_PACKAGES)


def between_projects(x: Import) -> bool:
    home = [package for package in PROJECT_PACKAGES if is_in(x.importer, package)]
    return bool(home) and is_in(x.target, *PROJECT_PACKAGES) and not is_in(x.target, *home)


RULES = [
    from_layers_upwards,
    from_structures_upwards,
    from_modeling_upwards,
    from_checkpoint_upwards,
    from_analysis_elsewhere,
    from_library_to_project,
    between_projects,
]


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    """Imports of this checkout, with the projects under the names that they have in a wheel."""
    modules = modules_of(ROOT / "align_detr", "align_detr")
    for name, folder in PROJECTS.items():
        modules |= modules_of(ROOT / "projects" / folder / name, f"align_detr.projects.{name}")
    return imports_of(modules)


def test_graph_is_whole(imports):
    """A few imports of each kind are in the graph: at the top, inside a function, of a project."""
    pairs = {(x.importer, x.target) for x in imports}
    assert ("align_detr.modeling.meta_arch.detector", "align_detr.lazy_config") in pairs
    assert ("align_detr.cli.train", "align_detr.engine.run") in pairs
    assert any(is_in(a, "align_detr.projects.tsp") and b == "align_detr.structures" for a, b in pairs)
    assert len(pairs) > 300


def test_no_module_imports_itself_by_way_of_others(imports):
    assert circle(imports) == []


@pytest.mark.parametrize("broken", RULES)
def test_no_import_leads_upwards(imports, broken):
    assert [str(x) for x in imports if broken(x)] == []


@pytest.fixture
def tiny_package(tmp_path):
    """A function that writes files into a package `p` and returns its imports."""

    def write(**files: str) -> list[Import]:
        for name, text in files.items():
            path = tmp_path.joinpath(*name.split("__", 1)).with_suffix(".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            (path.parent / "__init__.py").touch()
        return imports_of(modules_of(tmp_path, "p"))

    return write


@pytest.mark.parametrize(
    "text",
    [
        "import p.a",
        "from p import a",
        "from p.a import name",
        "from .a import name",
        "from . import a",
        "def f():\n    from p.a import name",
        "try:\n    import p.a\nexcept ImportError:\n    pass",
    ],
)
def test_a_circle_is_found_however_it_is_written(tiny_package, text):
    imports = tiny_package(a="import p.b", b=text, c="import p.a")
    assert sorted(circle(imports)[1:]) == ["p.a", "p.b"]


def test_imports_for_type_checkers_make_no_circle(tiny_package):
    for_checkers = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import p.a"
    imports = tiny_package(a="import os\nfrom p.b import x", b=for_checkers)
    assert [(x.importer, x.target, x.typing) for x in imports] == [("p.a", "p.b", False), ("p.b", "p.a", True)]
    assert circle(imports) == []
    assert circle(tiny_package(b=f"{for_checkers}\nelse:\n    import p.a")) != []


def test_a_circle_through_a_package_is_found(tiny_package, tmp_path):
    """`a` imports `sub.x` and so runs `sub/__init__.py`: a circle if that imports `a`, none if it imports `sub.x`."""
    tiny_package(a="from p.sub.x import name", sub__x="from p.sub.y import name", sub__y="")
    (tmp_path / "sub" / "__init__.py").write_text("from p.sub.x import name")
    assert circle(imports_of(modules_of(tmp_path, "p"))) == []
    (tmp_path / "sub" / "__init__.py").write_text("import p.a")
    assert sorted(circle(imports_of(modules_of(tmp_path, "p")))[1:]) == ["p.a", "p.sub"]


@pytest.mark.parametrize(
    ("broken", "importer", "target", "allowed"),
    [
        (from_layers_upwards, "align_detr.layers.mlp", "align_detr.structures", "align_detr.layers.boxes"),
        (from_structures_upwards, "align_detr.structures", "align_detr.modeling.pairs", "align_detr.errors"),
        (from_modeling_upwards, "align_detr.modeling.pairs", "align_detr.data.build", "align_detr.lazy_config"),
        (from_checkpoint_upwards, "align_detr.checkpoint.dino", "align_detr.modeling.head", "align_detr.errors"),
        (from_analysis_elsewhere, "align_detr.analysis.reading", "align_detr.checks", "align_detr.errors"),
        (from_library_to_project, "align_detr.model_zoo", "align_detr.projects.tsp.fcos", "align_detr.projects.table"),
        (between_projects, "align_detr.projects.tsp.rcnn", "align_detr.projects.smca", "align_detr.projects.tsp.fcos"),
    ],
)
def test_each_rule_refuses_and_allows(broken, importer, target, allowed):
    assert broken(Import(importer, target, 1, False)) and not broken(Import(importer, allowed, 1, False))
