"""The config that is made from a data set's folder: what may stand in it, and what it never replaces."""

import ast
import logging
from pathlib import Path

import pytest

from align_detr.cli.main import main
from align_detr.engine.data_config import DataOptions, write_config
from align_detr.errors import ConfigError, DatasetError
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


def test_a_config_is_never_replaced_by_one_that_loads_itself(tmp_path, capsys):
    """`train --data D --config-file output/D/config.py` is refused, and the file stays; another folder is accepted."""
    data = write_yolo(tmp_path / "parts")
    path = write_config(data)
    text = path.read_text()
    with pytest.raises(ConfigError, match="names its data already: leave out --data, or set another train.output_dir"):
        write_config(data, str(path.absolute()))
    assert main(["train", "--data", data.folder, "--config-file", "output/../output/parts/config.py"]) == 2
    assert "names its data already" in capsys.readouterr().err
    assert path.read_text() == text
    assert load_config(str(write_config(data, str(path), ["train.output_dir=other"]))).train.output_dir == "other"


def test_an_edited_config_is_kept(tmp_path, caplog):
    """The old files get numbers, which the log names; a config that would be the same is not written."""
    data = write_yolo(tmp_path / "parts")
    path = write_config(data)
    made = path.read_text()
    assert write_config(data) == path
    assert [each.name for each in path.parent.iterdir()] == ["config.py"]
    with caplog.at_level(logging.WARNING):
        for edit in ("# one", "# two"):
            path.write_text(made + edit)
            write_config(data)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} differs from the new config: it is kept as {path}.{number}." for number in (1, 2)
    ]
    texts = {each.name: each.read_text() for each in path.parent.iterdir()}
    assert texts == {"config.py": made, "config.py.1": f"{made}# one", "config.py.2": f"{made}# two"}


def test_an_evaluation_writes_no_config(tmp_path, capsys):
    """The config is printed; a config.py that is there stays, and none is made."""
    data = write_yolo(tmp_path / "parts")
    arguments = ["train", "--data", data.folder, "--eval-only", "train.device=cpu"]
    assert main([*arguments, "train.init_checkpoint=nowhere.pth"]) == 2
    assert 'train.class_names = ["screw", "bolt"]' in capsys.readouterr().out
    path = tmp_path / "output/parts/config.py"
    assert not path.exists()
    trees.write_text(path, "# edited\n")
    assert main([*arguments, "train.init_checkpoint=nowhere.pth"]) == 2
    assert path.read_text() == "# edited\n"
    assert not list(path.parent.glob("config.py.*"))


@pytest.mark.parametrize("name", ["${oc.env:HOME}", "a ${train.seed}", "${", "???"])
def test_a_class_name_that_a_config_would_replace_is_refused(tmp_path, name):
    """The sentence names the class and what to do; no file is written."""
    data = write_yolo(tmp_path / "parts", f"['{name}', bolt]")
    with pytest.raises(DatasetError) as error:
        write_config(data)
    assert f"has the class '{name}', which a config reads as the value of a key or" in str(error.value)
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("name", ["$", "$a", "a?", "??", "{a}"])
def test_other_class_names_are_kept(tmp_path, name):
    """Signs that only look like a config's own stay as they are."""
    made = load_config(str(write_config(write_yolo(tmp_path / "parts", f"['{name}', bolt]"))))
    assert list(made.train.class_names) == [name, "bolt"]


def test_epochs_replace_the_iterations_of_the_config(tmp_path):
    """Also where the file runs by itself later; 0, evaluation at the end only, stays."""
    data = write_yolo(tmp_path / "parts")
    train = load_config(str(write_config(data, "quickstart/bccd_dino.py", ["train.epochs=5"]))).train
    assert (train.epochs, train.max_iter) == (5, None)
    train = load_config(str(write_config(data, "quickstart/bccd_dino.py", ["train.output_dir=other"]))).train
    assert train.max_iter == 600


def test_an_earlier_run_keeps_its_config(tmp_path):
    """A second run in its folder is refused before config.py changes, unless it continues or replaces the first."""
    data = write_yolo(tmp_path / "parts")
    path = write_config(data)
    made = path.read_text()
    (path.parent / "model_final.pth").touch()
    with pytest.raises(ConfigError, match="has checkpoints of an earlier run"):
        write_config(data, overrides=["train.epochs=7"])
    assert path.read_text() == made
    write_config(data, overrides=["train.epochs=7"], resume=True)
    assert "train.epochs = 7" in write_config(data, overrides=["train.epochs=7"], overwrite=True).read_text()
