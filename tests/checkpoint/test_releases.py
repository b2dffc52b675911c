"""The table of published weights: that it fits the library, and docs/models.md."""

import importlib
import re

import pytest

from align_detr import model_zoo
from align_detr.checkpoint.releases import ReleasedFile, releases
from support.paths import PROJECT


def row(release: ReleasedFile) -> str:
    """Return the release's row of docs/models.md."""
    ap = "" if release.ap is None else f"{release.ap:.1f}"
    where = f"[{release.file or ('file' if '/file/d/' in release.url else 'list')}]({release.url})"
    size = "" if release.size is None else f"{release.size} MB"
    return f"| `{release.name}` | `{release.config}` | {ap} | {where} | {size} | {release.sha256 or ''} |"


def test_names_are_different_and_configs_exist() -> None:
    names = [release.name for release in releases()]
    assert len(set(names)) == len(names) >= 45
    assert {release.config for release in releases()} <= set(model_zoo.names())


@pytest.mark.parametrize("module", sorted({release.converter for release in releases()}))
def test_converters_exist(module: str) -> None:
    """Each is a module with a function that converts."""
    assert any(name.startswith("convert") for name in vars(importlib.import_module(module)))


def test_addresses_and_hashes() -> None:
    """A hash is 8 digits at the end of the file's name, as torch.hub takes it; a name of a file ends its address."""
    for release in releases():
        assert re.fullmatch(r"https://[\w./#-]+", release.url) and release.source
        assert release.url.endswith(release.file)
        if release.sha256 is not None:
            assert re.fullmatch(r"[0-9a-f]{8}", release.sha256) and release.file.endswith(f"-{release.sha256}.pth")


def test_the_document_has_the_same_table() -> None:
    text = (PROJECT / "docs" / "models.md").read_text()
    table = [line for line in text.splitlines() if re.match(r"\| `[a-z0-9-]+` \|", line)]
    assert table == [row(release) for release in releases()]
