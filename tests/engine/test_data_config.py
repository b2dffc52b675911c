"""The config that is made from a data set's folder: what may stand in it, and what it never replaces."""

import ast
from pathlib import Path

import pytest

from align_detr.engine.data_config import DataOptions, write_config
from align_detr.lazy_config import load_config
from support import trees


@pytest.fixture(autouse=True)
def _work_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the output folders in the test's own folder."""
    monkeypatch.chdir(tmp_path)


def write_yolo(root: Path, names: str = "[screw, bolt]") -> DataOptions:
    """Write a YOLO data set without a validation split and return its options."""
    trees.write_images(root / "images")
    trees.write_labels(root / "labels")
    trees.write_text(root / "data.yaml", f"train: images\nnames: {names}\n")
    return DataOptions(str(root))


class _WithoutTexts(ast.NodeTransformer):
    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        return ast.Constant("") if isinstance(node.value, str) else node


@pytest.mark.parametrize(
    "name",
    [
        'a"""\nraise SystemExit\n"""',
        "a\\",
        "a\\N",
        "a\nraise SystemExit",
        "a\rraise SystemExit",
        "a\u2028raise SystemExit",
        "coding: utf-7",
        "a\udcff",
    ],
)
def test_a_folder_s_name_is_never_code(tmp_path, name):
    """Whatever the name, config.py compiles, loads and differs from that of a plain name in texts only."""
    plain, made = (write_config(write_yolo(tmp_path / each)) for each in ("plain", name))
    trees_of_code = [_WithoutTexts().visit(ast.parse(path.read_bytes())) for path in (plain, made)]
    assert ast.dump(trees_of_code[0]) == ast.dump(trees_of_code[1])
    assert list(load_config(str(made)).train.class_names) == ["screw", "bolt"]
