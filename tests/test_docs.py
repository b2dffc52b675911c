"""What the documents name exists: links, paths and dotted names; their Python runs; forms and hooks are well made."""

import ast
import pkgutil
import re
from pathlib import Path

import pytest
import torch
import yaml
from detectron2.config import LazyCall, LazyConfig, instantiate

from align_detr import model_zoo, modeling, structures
from align_detr.data import load_dataset
from align_detr.data.convert import convert
from align_detr.engine.summary import describe_environment
from align_detr.projects.table import PROJECTS
from support import trees
from support.datasets import forgotten
from support.paths import PROJECT

PAGES = {
    path.relative_to(PROJECT).as_posix(): path
    for pattern in (
        "*.md",
        "docs/*.md",
        "docs/*/*.md",
        "datasets/*.md",
        "benchmarks/*.md",
        "projects/*.md",
        "projects/*/*.md",
    )
    for path in sorted(PROJECT.glob(pattern))
}
CODE_BLOCK = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
LAYOUT_ROW = re.compile(r"^\| `([\w/]+/)` \| (.+) \|$", re.MULTILINE)  # folder, contents
OF_A_RUN = (
    "alignment.json",
    "log.txt",
    "config.yaml",
    "metrics.json",
    "best.json",
    "loggers.json",
    "layer_0.json",
    "layer_1.json",
    "matching.json",
    "predictions.json",
    "predictions.png",
    "my_config.py",  # files that a reader writes
    "new_loss.py",
    ".venv/bin/python",
    "site/",
)  # made, not kept
PARTS = ("align_detr/modeling/", "align_detr/modeling/queries/", "align_detr/modeling/matching/")


def spans(text: str) -> list[str]:
    """Return what stands in single backticks outside of code blocks."""
    return re.findall(r"`([^`\n]+)`", CODE_BLOCK.sub("", text))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", CODE_BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-") for head in heads}


def dead_links(page: Path) -> list[str]:
    """Return the relative links of a page that lead nowhere."""
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    return dead


def is_path(span: str) -> bool:
    """Return whether a span is a path of the repository: a folder, or a file with a known ending."""
    if not re.fullmatch(r"[\w.\-]+(/[\w.\-]+)*/?", span) or span.startswith("output/"):
        return False
    return span.endswith(("/", ".py", ".md", ".yml", ".yaml", ".toml", ".txt", ".json", ".png"))


def folders_of(page: Path) -> list[Path]:
    """Return where a page's paths may begin: the repository, the page's folder, and a project's package."""
    packages = [page.parent / name for name, folder in PROJECTS.items() if folder == page.parent.name]
    return [PROJECT, page.parent, *packages]


def missing_paths(page: Path) -> list[str]:
    """Return the paths that a page names and nothing is at; names of configs are paths, too."""
    configs = set(model_zoo.names())
    text = LAYOUT_ROW.sub("", page.read_text())
    named = {span for span in spans(text) if is_path(span)} - configs - set(OF_A_RUN)
    files = {name.rpartition("/")[2] for name in configs}
    return [x for x in sorted(named) if x not in files and not any((f / x).exists() for f in folders_of(page))]


def missing_names(page: Path) -> list[str]:
    """Return the dotted names of the library that a page names and that do not exist."""
    return sorted(x for x in set(spans(page.read_text())) if re.fullmatch(r"align_detr(\.\w+)+", x) and not resolves(x))


def resolves(name: str) -> bool:
    """Return whether a module or a name of a module has this dotted name."""
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def missing_attributes(page: Path) -> list[str]:
    """Return each `Class.name` of a page, of a class of ours, that the class has not."""
    missing = []
    named = [x for x in spans(page.read_text()) if re.fullmatch(r"[A-Z]\w+\.[a-z]\w*", x) and not is_path(x)]
    for owner, name in (x.split(".") for x in named):
        found = [vars(module)[owner] for module in (structures, modeling) if owner in vars(module)]
        if not found or not (hasattr(found[0], name) or name in getattr(found[0], "__dataclass_fields__", ())):
            missing.append(f"{owner}.{name}")
    return missing


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    assert dead_links(PAGES[page]) == []


@pytest.mark.parametrize("page", PAGES)
def test_paths_and_names_exist(page: str) -> None:
    """But for the changelog, which also names what was."""
    checks = (missing_paths, missing_names, missing_attributes)
    assert page == "CHANGELOG.md" or [x for check in checks for x in check(PAGES[page])] == []


def test_the_checks_find_what_is_missing(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A head\n[a](gone.md) [b](#a-head) [c](#another) [d](https://example.org)\n"
        "`docs/gone.md` `gone/` `dino/dino_r50_4scale_12ep.py` `align_detr.Gone` `align_detr.model_zoo.names`\n"
        "`DETR.gone` `Match.weight` `DETR.losses`\n"
        "```\n`docs/gone_too.md`\n```\n"
    )
    assert dead_links(page) == ["gone.md", "#another"]
    assert missing_paths(page) == ["docs/gone.md", "gone/"] and missing_names(page) == ["align_detr.Gone"]
    assert missing_attributes(page) == ["DETR.gone"]


def layout() -> dict[str, str]:
    """Return folder -> contents, the rows of the layout's table in docs/architecture.md."""
    return dict(LAYOUT_ROW.findall(PAGES["docs/architecture.md"].read_text()))


def test_files_of_the_layout_exist() -> None:
    for folder, contents in layout().items():
        for span in filter(is_path, spans(contents)):
            assert (PROJECT / folder / span).exists() or (PROJECT / span).exists(), f"{folder}: {span}"


def test_the_layout_is_complete() -> None:
    """Every package of the library has a row, and the rows of its parts name every file."""
    packages = {path.parent.relative_to(PROJECT).as_posix() + "/" for path in PROJECT.glob("align_detr/**/__init__.py")}
    assert packages <= set(layout())
    for folder in PARTS:
        files = {path.name for path in (PROJECT / folder).glob("*.py")} - {"__init__.py"}
        assert files <= set(spans(layout()[folder]))


def test_stable_packages_list_their_names() -> None:
    """What docs/stability.md calls public has an `__all__`."""
    public = re.search(r"^- Public are (.+?)^- ", PAGES["docs/stability.md"].read_text(), re.MULTILINE | re.DOTALL)[1]
    packages = [x for x in spans(public) if x.startswith("align_detr")]
    assert len(packages) == 11
    for name in packages:
        assert pkgutil.resolve_name(name).__all__


def test_config_of_the_guide(tmp_path: Path) -> None:
    """The config of CONTRIBUTING.md loads from a folder beside those of its parents."""
    config, _ = re.findall(r"```python\n(.*?)```", PAGES["CONTRIBUTING.md"].read_text(), re.DOTALL)
    for folder in (PROJECT / "configs").iterdir():
        (tmp_path / folder.name).symlink_to(folder)
    (tmp_path / "family").mkdir()
    (tmp_path / "family" / "config.py").write_text(config)
    model = LazyConfig.load(str(tmp_path / "family" / "config.py")).model
    assert model.proposals.num_queries == model.queries.main.num_queries == 300


def test_configs_with_other_backbones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configs of docs/backbones.md load beside those of their parents, and their backbones give what the necks
    read, of the image's size over the stride, rounded up.
    """
    blocks = re.findall(r"```python\n(.*?)```", PAGES["docs/backbones.md"].read_text(), re.DOTALL)
    configs = [block for block in blocks if "class MyBackbone" not in block]
    (module,) = set(blocks) - set(configs)
    (tmp_path / "my_backbone.py").write_text(module)
    monkeypatch.syspath_prepend(str(tmp_path))
    for folder in (PROJECT / "configs").iterdir():
        (tmp_path / folder.name).symlink_to(folder)
    (tmp_path / "family").mkdir()
    assert len(configs) == 3
    for i, text in enumerate(configs):
        (tmp_path / "family" / f"config_{i}.py").write_text(text)
        model = LazyConfig.load(str(tmp_path / "family" / f"config_{i}.py")).model
        backbone = instantiate(model.backbone)
        shapes = backbone.output_shape()
        assert {name: shapes[name].channels for name in shapes} == dict(model.neck.in_channels)
        for name, x in backbone(torch.zeros(1, 3, 65, 97)).items():
            assert x.shape[1:] == (shapes[name].channels, -(-65 // shapes[name].stride), -(-97 // shapes[name].stride))


def test_config_of_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The config of docs/data.md loads beside shards, and registers their splits."""
    trees.write_json(tmp_path / "cells" / "train.json", trees.coco())
    trees.write_images(tmp_path / "cells")
    convert(tmp_path / "cells", to="shards", out=tmp_path / "cells_shards")
    mixes, _, config = re.findall(r"```python\n(.*?)```", PAGES["docs/data.md"].read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.py").write_text(config)
    with forgotten("cells_train"):
        loaded = LazyConfig.load("config.py")
        assert len(load_dataset(loaded.dataloader.train.dataset)) == 3
        exec(mixes, {"dataloader": loaded.dataloader, "L": LazyCall})
        assert [instantiate(mix).probability for mix in loaded.dataloader.train.mixes] == [0.5, 0.5]
    assert loaded.model.head.num_classes == 3


def test_config_of_registered_data() -> None:
    """The lines of docs/data.md for a config of one's own."""
    _, code, _ = re.findall(r"```python\n(.*?)```", PAGES["docs/data.md"].read_text(), re.DOTALL)
    namespace: dict = {}
    with forgotten("cells_train", "cells_val"):
        exec(code, namespace)
    assert instantiate(namespace["model"].head).class_embed.out_features == 3 + 1
    assert namespace["dataloader"].train.dataset == "cells_train"


def test_loss_of_the_guide() -> None:
    """The loss of CONTRIBUTING.md has the weights that its docstrings state: w u = 0.4, s = 0.5."""
    _, loss = re.findall(r"```python\n(.*?)```", PAGES["CONTRIBUTING.md"].read_text(), re.DOTALL)
    namespace: dict = {}
    exec(loss, namespace)
    module = namespace["SquaredErrorLoss"]()
    assert module.positive(0.5, 0.8, 0.5) == pytest.approx((0.01 * 0.4, 0.01 * 0.6)) and module.negative(0.5) == 0.25


def test_forms_and_hooks() -> None:
    """The issue form asks for what a report needs; the environment line is that of the log; the hook is make lint."""
    form = yaml.safe_load((PROJECT / ".github/ISSUE_TEMPLATE/bug.yml").read_text())
    required = {field["id"] for field in form["body"] if field.get("validations", {}).get("required")}
    assert {"config", "overrides", "environment", "error"} <= required
    (environment,) = (field["attributes"] for field in form["body"] if field["id"] == "environment")
    assert describe_environment().startswith("Python ") and environment["placeholder"].startswith("Python ")
    code = re.search(r'python -c "([^"]+)"', environment["description"])[1]
    exec(code, {"print": lambda line: required.add(line)})
    assert describe_environment() in required
    (hook,) = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert hook["entry"] == "make lint" and hook["language"] == "system"


@pytest.mark.parametrize("path", sorted((PROJECT / "configs" / "quickstart").glob("*.py")), ids=lambda path: path.stem)
def test_a_quickstart_says_what_it_needs(path: Path) -> None:
    """Files, folders and network, in its docstring; docs/data.md has a row for it."""
    text = ast.get_docstring(ast.parse(path.read_text()))
    assert "Needs" in text and ("is downloaded" in text or "network" in text or "nothing downloaded" in text)
    page = PAGES["docs/data.md"].read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `quickstart/")]
    assert any(path.name in row or ("digits*.py" in row and path.name.startswith("digits")) for row in rows)
