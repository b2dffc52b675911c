"""What the READMEs show: commands, configs and Python; the quickstart configs end to end, the demo on a few images."""

import json
import logging
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from PIL import Image

from align_detr import model_zoo
from align_detr.cli import demo, predict, train
from align_detr.cli import main as cli
from align_detr.cli.zoo import epochs_of
from align_detr.data import load_dataset
from align_detr.errors import DatasetError
from align_detr.lazy_config import load_config
from align_detr.paths import data_path
from align_detr.published import PUBLISHED_AP
from align_detr.shipped import shipped_weights
from support import trees
from support.paths import PROJECT, require_data

README = (PROJECT / "README.md").read_text()
READMES = {
    path.relative_to(PROJECT).as_posix(): path
    for pattern in ("*.md", "projects/*/*.md", "docs/models.md", "docs/settings.md")
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
    assert len(named_configs(READMES["README.md"])) >= 6 and "docs/settings.md" in dict(commands())
    for folder in (PROJECT / "projects").glob("*/configs"):
        readme = f"projects/{folder.parent.name}/README.md"
        assert readme in dict(commands())
        configs = {f"{folder.parent.name}/{path.name}" for path in folder.glob("*.py")}
        assert configs <= named_configs(READMES[readme])


def test_python_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a photo and on a small data set, for one epoch."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (128, 96), "white").save("photo.jpg")
    trees.write_images(tmp_path / "cells" / "images")
    for split in ("train", "val"):
        trees.write_json(tmp_path / "cells" / f"{split}.json", trees.coco())
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    short = "epochs=1, overrides=[f'dataloader.{part}.num_workers=0' for part in ('train', 'test')]"
    namespace: dict = {}
    exec(compile(code.replace("epochs=20", short), "README.md", "exec"), namespace)
    assert namespace["detector"].class_names == ["screw", "bolt"] and Path("found.jpg").is_file()
    assert namespace["first"]["detections"] > 0 and len(namespace["first"]["thresholds"]) == 2


def test_families_of_the_readme() -> None:
    """A row per family with the number of its configs, and one of them with its epochs and published AP."""
    rows = re.findall(r"^\| .+ \| (\d+) \| `((\w+)/\w+\.py)` \| (\d*) ?\| (.*?) ?\|$", README, flags=re.MULTILINE)
    sizes = Counter(name.partition("/")[0] for name in model_zoo.names())
    assert {family: int(size) for size, _, family, _, _ in rows} == dict(sizes), "write the numbers into the README"
    for _, name, _, epochs, published in rows:
        assert epochs_of(name) == epochs, name
        expected = PUBLISHED_AP.get(name)
        assert published.startswith("PQ ") or published == ("" if expected is None else f"{expected:.1f}"), name


def test_predict_commands_of_the_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's runs; that of docs/inference.md, which needs a video reader, has known arguments."""
    (shown,) = re.findall(r"^align-detr predict ([^`#\n]+)", README, flags=re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    for path in (Path("photos/a.png"), Path("output/cells/weights.pth")):
        path.parent.mkdir(parents=True)
    Image.new("RGB", (128, 96), "white").save("photos/a.png")
    shutil.copy(shipped_weights("digits"), "output/cells/weights.pth")
    assert cli.main(["predict", *shlex.split(shown)]) == 0
    assert {path.name for path in Path("found").iterdir()} == {"a.png", "predictions.json", "predictions.csv"}
    page = (PROJECT / "docs/inference.md").read_text()
    for command in re.findall(r"^align-detr predict ([^`#\n]+)", page, flags=re.MULTILINE):
        assert predict.build_parser().parse_args(shlex.split(command)).sources


@pytest.fixture
def few(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Overrides that shorten the test data of the set that the test's parameter names to eight small images."""
    name = request.getfixturevalue("name")
    require_data(name)
    records = load_dataset(f"{name}_val")
    DatasetCatalog.register(f"{name}_few", lambda: records[:8])
    MetadataCatalog.get(f"{name}_few").thing_classes = MetadataCatalog.get(f"{name}_val").thing_classes
    small = "dataloader.test.mapper.augmentations.0.short_edge_length=[128,128]"
    yield [f"dataloader.test.dataset={name}_few", small]
    DatasetCatalog.remove(f"{name}_few")
    MetadataCatalog.remove(f"{name}_few")


@pytest.mark.parametrize("name", ["coco_mini", "bccd"])
def test_quickstart_trains_evaluates_and_resumes(name: str, few: list[str], tmp_path: Path) -> None:
    """The README's two quickstart commands, shortened to four iterations and eight small test images."""
    options = ["--config-file", f"quickstart/{name}.py", f"train.output_dir={tmp_path}", "train.log_period=1", *few]
    assert train.main([*options, "train.max_iter=4", "train.checkpointer.period=2"]) == 0
    rows = metrics(tmp_path)
    trained = [row for row in rows if "bbox/AP" in row][-1]
    assert (tmp_path / "config.yaml").is_file() and all("loss_class" in row for row in rows[:3])

    assert train.main([*options, "--eval-only"]) == 0
    evaluated = metrics(tmp_path)[-1]
    results = [key for key in trained if key.startswith("bbox/")]
    assert results and all(evaluated[key] == pytest.approx(trained[key], abs=1e-9, nan_ok=True) for key in results)

    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    assert train.main([*options, "--resume", "train.max_iter=4"]) == 0
    assert "Resuming at iteration 2 of 4." in (tmp_path / "log.txt").read_text()
    assert [row["iteration"] for row in metrics(tmp_path) if "total_loss" in row] == [0, 1, 2, 3]


def few_photos(split: str, count: int, folder: Path) -> str:
    """Register the first photos of a split of the blood cells, and return the data set's name."""
    coco = json.loads(data_path(f"bccd/instances_{split}.json").read_text())
    coco["images"] = coco["images"][:count]
    kept = {image["id"] for image in coco["images"]}
    coco["annotations"] = [a for a in coco["annotations"] if a["image_id"] in kept]
    (folder / f"{split}.json").write_text(json.dumps(coco))
    register_coco_instances(f"bccd_few_{split}", {}, str(folder / f"{split}.json"), str(data_path("bccd/images")))
    return f"bccd_few_{split}"


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The demo on few and small photos prints AP by class, the command to go on with, and the line of figures."""
    require_data("bccd")
    options = [f"train.output_dir={tmp_path / 'run'}", "train.max_iter=4", "train.eval_period=2", "train.log_period=1"]
    options += [
        f"dataloader.{part}.mapper.augmentations.{k}.short_edge_length=[64,64]"
        for part, k in [("train", 2), ("test", 0)]
    ]
    options += [f"dataloader.{part}.num_workers=0" for part in ("train", "test")]
    try:
        sets = [f"dataloader.{part}.dataset={few_photos(part, 4, tmp_path)}" for part in ("train", "test")]
        assert demo.main([*sets, *options]) == 0
    finally:
        for split in ("train", "test"):
            DatasetCatalog.pop(f"bccd_few_{split}", None)
    *_, head, _, figures, _, command, last = capsys.readouterr().out.strip().splitlines()
    assert head.split() == ["AP", "AP50", "AP75", "RBC", "WBC", "Platelets"] and len(figures.split()) == 6
    program, subcommand, photo, *rest = shlex.split(command)
    assert Path(program).name == "align-detr" and subcommand == "predict"
    assert (PROJECT / photo).is_file() and rest[:2] == ["--weights", f"{tmp_path / 'run' / 'weights.pth'}"]
    match = re.fullmatch(r"demo: AP=([\d.]+) AP50=([\d.]+) minutes=([\d.]+) figures=(.+)", last)
    assert match and 0 <= float(match[1]) <= 100 and 0 <= float(match[2]) <= 100
    for picture in ("predictions.png", "curves.png"):
        assert (Path(match[4]) / picture).read_bytes().startswith(b"\x89PNG")
    assert torch.is_grad_enabled()


def test_demo_without_photos_names_the_one_that_needs_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "data_path", lambda name: tmp_path / name)
    with pytest.raises(DatasetError, match="no photos of blood cells: use --data digits, which needs no file, or set"):
        demo.main([])
    assert load_config(demo.CONFIGS["digits"]).dataloader.train.dataset == "digits_train"
