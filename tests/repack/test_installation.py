"""What is installed and what is left alone, and where the archive is looked for."""

import hashlib
from pathlib import Path

import pytest

from align_detr.cli import install_detectron2 as command
from align_detr.errors import EnvironmentProblem
from align_detr.repack import installation, package_index
from align_detr.repack.package_index import make_finder, parse_pip_config
from align_detr.repack.wheel import repack_notice

ABSENT, FOREIGN, OLD = None, "", "align-detr edits 0123\n"


@pytest.mark.parametrize(
    ("repack", "works", "expected"),
    [
        (ABSENT, False, True),
        (ABSENT, True, False),  # a checkout on the path, without pip
        (FOREIGN, True, False),
        (repack_notice(), True, False),
        (repack_notice(), False, True),
        (OLD, True, True),  # ours, before the edits changed
    ],
)
def test_needs_install(monkeypatch: pytest.MonkeyPatch, repack: str | None, works: bool, expected: bool) -> None:
    monkeypatch.setattr(installation, "installed_repack", lambda: repack)
    monkeypatch.setattr(installation, "try_import", lambda: (works, "0.6 at somewhere"))
    assert installation.needs_install() is expected


def test_a_broken_detectron2_of_the_users_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "installed_repack", lambda: FOREIGN)
    monkeypatch.setattr(installation, "try_import", lambda: (False, "ImportError: undefined symbol"))
    with pytest.raises(EnvironmentProblem, match="undefined symbol.*pip uninstall detectron2"):
        installation.needs_install()


def test_main_installs_what_the_archive_gives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    archive = tmp_path / "archive.tar.gz"
    archive.write_bytes(b"any bytes")
    installed = []
    monkeypatch.setattr(command, "needs_install", lambda: True)
    monkeypatch.setattr(command, "write_wheel", lambda data, folder: (data, folder))
    monkeypatch.setattr(command, "install", lambda wheel: installed.append(wheel[0]))
    assert command.main(["--archive", str(archive)]) == 0
    assert installed == [b"any bytes"]


def test_pip_config_precedence() -> None:
    listing = (
        ":env:.index-url='https://env.example/simple'\n"
        "global.index-url='https://global.example/simple'\n"
        "global.extra-index-url='https://one.example https://two.example'\n"
        "install.extra-index-url='https://three.example'\n"
        "install.no-index='true'\n"
        "download.no-index='false'\n"
    )
    assert parse_pip_config(listing) == {
        "index-url": "https://env.example/simple",
        "extra-index-url": "https://three.example",
        "no-index": "true",
    }


def test_finder_looks_where_pip_looks(tmp_path: Path) -> None:
    pytest.importorskip("unearth")

    def urls(**config: str) -> list[str]:
        finder = make_finder({key.replace("_", "-"): value for key, value in config.items()})
        return [source["url"] for source in finder.sources]

    default = urls()
    assert len(default) == 1  # the public index
    assert urls(extra_index_url="https://b.example") == [*default, "https://b.example"]
    assert urls(index_url="https://a.example", extra_index_url="https://b.example https://c.example") == [
        "https://a.example",
        "https://b.example",
        "https://c.example",
    ]
    links = f"{tmp_path} {tmp_path / 'absent'}"
    assert urls(no_index="1", index_url="https://a.example", find_links=links) == [str(tmp_path)]


def test_archive_in_a_local_folder_is_found_without_an_index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("unearth")
    (tmp_path / "toy_detector-0.5.tar.gz").write_bytes(b"the archive")
    monkeypatch.setattr(package_index, "pip_config", lambda: {"no-index": "true", "find-links": str(tmp_path)})
    found = package_index.fetch_source_archive("toy-detector==0.5")
    assert hashlib.sha256(found).digest() == hashlib.sha256(b"the archive").digest()
    with pytest.raises(EnvironmentProblem, match="no source archive for toy-detector==0.6.*--archive"):
        package_index.fetch_source_archive("toy-detector==0.6")
