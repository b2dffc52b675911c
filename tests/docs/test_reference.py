"""The reference has every public name, each with a docstring; the site's menu has every page."""

import importlib
import pkgutil
import re
from pathlib import Path

import pages
import pytest
import reference

import align_detr


def test_every_public_name_is_documented() -> None:
    names = reference.public_names()
    assert len(names) > 280
    assert reference.undocumented(names) == []


def test_a_name_without_a_docstring_is_found() -> None:
    class Silent:
        def speak(self) -> None: ...

    name = reference.Public("align_detr", "align_detr", "Silent", Silent)
    assert reference.undocumented([name]) == ["align_detr.Silent", "align_detr.Silent.speak"]


def test_every_list_of_public_names_has_a_page() -> None:
    """Every package with an `__all__`; modules behind a package are its own affair."""
    for info in pkgutil.walk_packages(align_detr.__path__, "align_detr."):
        if info.ispkg and not info.name.startswith("align_detr.projects.tsp."):
            assert info.name in reference.FACES or not hasattr(importlib.import_module(info.name), "__all__"), info.name


def test_signatures_are_short() -> None:
    def measure(self: object, boxes: "align_detr.structures.Targets", *, k: int = 3, name: str | None = None) -> float:
        """Return nothing."""
        return 0.0

    text = "(boxes: Targets, *, k: int = 3, name: str | None = None) -> float"
    assert reference.signature(measure, bound=True) == text


def test_the_pages_of_the_reference(tmp_path: Path) -> None:
    reference.write_reference(tmp_path)
    losses = (tmp_path / "reference" / "align_detr.modeling.losses.md").read_text()
    assert "{py:class} align_detr.modeling.IABCELoss(" in losses and "{py:method} positive(" in losses
    commands = (tmp_path / "reference" / "commands.md").read_text()
    assert "## align-detr train\n" in commands and "usage: align-detr train" in commands
    for name in ("weights", "weights convert", "weights mean", "install-detectron2"):
        assert f"usage: align-detr {name} [-h]" in commands
    assert str(Path.home()) not in commands


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    pages.copy_pages(folder)
    return folder


def test_every_page_is_in_the_menu_once(source: Path) -> None:
    index = (source / "index.md").read_text()
    listed = [
        re.sub(r".*<(.*)>", r"\1", line)
        for block in re.findall(r"```{toctree}(.*?)```", index, re.DOTALL)
        for line in block.splitlines()
        if line and not line.startswith(":")
    ]
    assert sorted(listed) == sorted(pages.names_in(source) - {"index"} | {"self"})


def test_links_to_the_readme_and_to_files(source: Path) -> None:
    """The README is the site's index, and a linked file comes along."""
    for name in pages.names_in(source):
        for link in re.findall(r"\]\(([^)\s#:]+)[)#]", pages.CODE.sub("", (source / f"{name}.md").read_text())):
            assert (source / name).parent.joinpath(link).exists(), f"{name}: {link}"
