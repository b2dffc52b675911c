"""What the READMEs show: commands, configs and Python; the quickstart configs end to end, the demo on a few images."""

import json
import logging
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog

from align_detr.cli import demo, train
from align_detr.data.digits import DigitsSpec, register_digits
from align_detr.lazy_config import load_config
from support.paths import PROJECT, require_data

README = (PROJECT / "README.md").read_text()
READMES = {
    path.relative_to(PROJECT).as_posix(): path
    for pattern in ("*.md", "projects/*/*.md", "docs/models.md")
    for path in PROJECT.glob(pattern)
}


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """Training takes over some loggers: give them back."""
    names = ("align_detr", "detectron2", "fvcore")
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger, list(logger.handlers), logger.propagate) for logger in loggers]
    yield
    for logger, handlers, propagate in before:
        logger.handlers, logger.propagate = handlers, propagate


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def commands() -> list[tuple[str, str]]:
    """Every train_net.py command of the READMEs, from code blocks and from the text, and where it stands."""
    return [
        (name, command)
        for name, path in READMES.items()
        for command in re.findall(r"train_net\.py ([^`#\n]+)", path.read_text())
    ]


@pytest.mark.parametrize(("readme", "command"), commands())
def test_arguments_of_the_readmes_commands(readme: str, command: str) -> None:
    args = train.build_parser().parse_intermixed_args(shlex.split(command))
    cfg = load_config(args.config_file, args.overrides)
    assert cfg.model and cfg.dataloader.train.total_batch_size > 0


def named_configs(page: Path) -> set[str]:
    """Return what has the form folder/file.py and is a file neither of the repository nor beside the page."""
    found = re.findall(r"(?<![\w/.])(\w+/\w+\.py)\b", page.read_text())
    return {name for name in found if not any((folder / name).is_file() for folder in (PROJECT, page.parent))}


@pytest.mark.parametrize("readme", READMES)
def test_configs_that_the_readmes_name(readme: str) -> None:
    for name in named_configs(READMES[readme]):
        load_config(name)


def test_every_project_shows_its_configs_and_a_command() -> None:
    assert len(named_configs(READMES["README.md"])) >= 6 and "README.md" in dict(commands())
    for folder in (PROJECT / "projects").glob("*/configs"):
        readme = f"projects/{folder.parent.name}/README.md"
        assert readme in dict(commands())
        configs = {f"{folder.parent.name}/{path.name}" for path in folder.glob("*.py")}
        assert configs <= named_configs(READMES[readme])


def test_python_of_the_readme() -> None:
    namespace: dict = {}
    snippets = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert snippets
    try:
        for snippet in snippets:
            exec(compile(snippet, "README.md", "exec"), namespace)
        assert instantiate(namespace["model"].head).class_embed.out_features == 3 + 1
        assert namespace["dataloader"].train.dataset == "cells_train"
    finally:
        for name in ("cells_train", "cells_val"):
            DatasetCatalog.pop(name, None)


@pytest.mark.parametrize("name", ["coco_mini", "bccd"])
def test_quickstart_trains_evaluates_and_resumes(name: str, tmp_path: Path) -> None:
    """The README's two quickstart commands, shortened to four iterations and small test images."""
    require_data(name)
    small = "dataloader.test.mapper.augmentations.0.short_edge_length=[128,128]"
    options = ["--config-file", f"quickstart/{name}.py", f"train.output_dir={tmp_path}", "train.log_period=1", small]
    assert train.main([*options, "train.max_iter=4", "train.checkpointer.period=2"]) == 0
    rows = metrics(tmp_path)
    trained = [row for row in rows if "bbox/AP" in row][-1]
    assert (tmp_path / "config.yaml").is_file() and all("loss_class" in row for row in rows[:3])

    assert train.main([*options, "--eval-only"]) == 0
    evaluated = metrics(tmp_path)[-1]
    results = [key for key in trained if key.startswith("bbox/")]
    assert results and all(evaluated[key] == pytest.approx(trained[key], abs=1e-9, nan_ok=True) for key in results)

    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    count = len(metrics(tmp_path))
    assert train.main([*options, "--resume", "train.max_iter=4"]) == 0
    resumed = [row["iteration"] for row in metrics(tmp_path)[count:] if "total_loss" in row]
    assert min(resumed) == 2, "continues after iteration 1, the last of the checkpoint"


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for split in ("train", "val"):
        register_digits(f"digits_few_{split}", DigitsSpec(split=split, num_images=16), tmp_path)
    try:
        sets = ["dataloader.train.dataset=digits_few_train", "dataloader.test.dataset=digits_few_val"]
        length = ["train.max_iter=6", "train.eval_period=3", "train.log_period=2"]
        assert demo.main([f"train.output_dir={tmp_path / 'run'}", *sets, *length]) == 0
    finally:
        for split in ("train", "val"):
            DatasetCatalog.remove(f"digits_few_{split}")
    last = capsys.readouterr().out.strip().splitlines()[-1]
    match = re.fullmatch(r"demo: AP=([\d.]+) AP50=([\d.]+) minutes=([\d.]+) figures=(.+)", last)
    assert match and 0 <= float(match[1]) <= 100 and 0 <= float(match[2]) <= 100
    for picture in ("predictions.png", "curves.png"):
        assert (Path(match[4]) / picture).read_bytes().startswith(b"\x89PNG")
    assert torch.is_grad_enabled()
