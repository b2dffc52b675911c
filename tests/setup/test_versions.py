"""The supported Python versions: pyproject.toml states them, and every other file agrees with it."""

import re
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parents[2]


def read(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def classified_versions() -> list[str]:
    """The minor versions among the classifiers of pyproject.toml, in its order."""
    return re.findall(r'"Programming Language :: Python :: (3\.\d+)"', read("pyproject.toml"))


def test_classifiers_are_the_required_range() -> None:
    found = re.search(r'^requires-python = ">=3\.(\d+),<3\.(\d+)"$', read("pyproject.toml"), re.MULTILINE)
    assert found is not None
    oldest, beyond = map(int, found.groups())
    assert classified_versions() == [f"3.{minor}" for minor in range(oldest, beyond)]


def test_workflow_runs_the_checks_on_each_version() -> None:
    job = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]["test"]
    assert job["strategy"]["matrix"]["python"] == classified_versions()
    runs = [step["run"] for step in job["steps"] if "run" in step]
    assert runs == [".ci/run"] and (PROJECT / ".ci/run").stat().st_mode & 0o100


def test_makefile_and_readme_name_the_range() -> None:
    oldest, newest = classified_versions()[0], classified_versions()[-1]
    makefile = read("Makefile")
    ranges = re.findall(r"(3\.\d+) to (3\.\d+)", makefile)
    assert len(ranges) == 3 and set(ranges) == {(oldest, newest)}
    low, high = (f"({version.replace('.', ', ')})" for version in (oldest, newest))
    assert f"{low} <= sys.version_info[:2] <= {high}" in makefile
    assert f"You need Python {oldest} to {newest}, make" in read("README.md")


def test_linters_read_the_oldest_version() -> None:
    assert f'target-version = "py{classified_versions()[0].replace(".", "")}"' in read("pyproject.toml")
