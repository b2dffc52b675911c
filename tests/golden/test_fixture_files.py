"""Every numeric fixture has a test, and one that comes later has those of its family: by the patterns in the tests."""

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.golden import matching
from support.paths import GOLDEN, PROJECT

FILES = sorted(path.relative_to(GOLDEN) for path in GOLDEN.rglob("*.npz"))
by_file = pytest.mark.parametrize("file", FILES, ids=Path.as_posix)


def claims() -> Iterator[tuple[str, list[str], dict[str, Any]]]:
    """Yield each test under a `fixtures` decorator with the decorator's patterns and options, from all of the tests'
    files, those that are not run included.
    """
    for path in sorted((PROJECT / "tests").rglob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            for call in getattr(node, "decorator_list", []):
                if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "fixtures":
                    patterns = [ast.literal_eval(x) for x in call.args]
                    yield (
                        f"{path.name}::{node.name}",
                        patterns,
                        {x.arg: ast.literal_eval(x.value) for x in call.keywords},
                    )


CLAIMS = list(claims())


def claimed_by(path: Path, root: Path) -> set[str]:
    return {test for test, patterns, options in CLAIMS if path in matching(root, *patterns, **options)}


@by_file
def test_a_fixture_and_a_variant_of_it_have_the_same_tests(file: Path, tmp_path: Path) -> None:
    """`x_variant.npz` has every test that `x.npz` has, and it is no other family's."""
    tests = claimed_by(GOLDEN / file, GOLDEN)
    assert tests, f"no test opens {file}"
    variant = tmp_path / file.with_name(f"{file.stem}_variant.npz")
    variant.parent.mkdir(exist_ok=True)
    shutil.copy(GOLDEN / file, variant)
    assert claimed_by(variant, tmp_path) == tests


@by_file
def test_a_fixture_belongs_to_one_family(file: Path) -> None:
    """Its tests stand in one file."""
    assert len({test.partition("::")[0] for test in claimed_by(GOLDEN / file, GOLDEN)}) == 1
