"""The studies of benchmarks/: their commands; which runs are made, kept and told of, with a trainer of no weight."""

import importlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from omegaconf import DictConfig

from align_detr.lazy_config import load_config
from support.paths import PROJECT

NAMES = [path.stem for path in (PROJECT / "benchmarks").glob("*.py") if "STUDY = Study(" in path.read_text()]


@pytest.fixture
def studies(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    yield importlib.import_module("studies")
    for name in ("studies", *NAMES):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", NAMES)
def test_commands_load_and_folders_differ(name: str, studies: ModuleType) -> None:
    study, folders = importlib.import_module(name).STUDY, set()
    for variant in study.variants:
        command = study.command(variant, 7)
        assert command[2:4] == ["--config-file", variant.config] and command[-1] == "--overwrite"
        cfg = load_config(variant.config, command[4:-1])
        assert cfg.train.seed == 7 and cfg.train.output_dir == str(study.folder(variant, 7))
        folders.update(study.folder(variant, seed) for seed in (1, 7))
    assert len(folders) == 2 * len(study.variants)
    assert len({study.fingerprint(variant, seed) for variant in study.variants for seed in (1, 7)}) == len(folders)


def test_all_studies_are_here() -> None:
    assert sorted(NAMES) == [
        "ablations",
        "ablations_equal_time",
        "bccd",
        "convergence",
        "dab_align",
        "matching_distillation",
    ]


# Class loss, its own numbers, copies of the three layers and the proposals, numbers of the weighting: alpha and tau, or
# beta and mu.
ONE, TWO, THREE = ([1, 1, 1], 1), ([2, 2, 1], 2), ([3, 3, 1], 3)
ABLATIONS = {
    "focal": ("SigmoidFocalLoss", {"alpha": 0.25, "gamma": 2}, ONE, None),
    "QFL, gamma 2": ("QualityFocalLoss", {"gamma": 2}, ONE, None),
    "QFL, gamma 1": ("QualityFocalLoss", {"gamma": 1}, ONE, None),
    "VFL": ("VariFocalLoss", {"alpha": 0.75, "gamma": 2}, ONE, None),
    "newer Align loss": ("AlignLoss", {"alpha": 0.25, "gamma": 2}, ONE, None),
    "IA-BCE, k 1": ("IABCELoss", {"alpha": 0.25, "gamma": 2}, ONE, None),
    "DW, k 3": ("DualWeightingLoss", {"gamma": 2, "power": 2}, THREE, (5, 5)),
    "k 2, unweighted": ("IABCELoss", {"alpha": 0.25, "gamma": 2}, TWO, None),
    "k 2": ("IABCELoss", {"alpha": 0.25, "gamma": 2}, TWO, (0.25, 1.5)),
    "k 3, unweighted": ("IABCELoss", {"alpha": 0.25, "gamma": 2}, THREE, None),
    "k 3": ("IABCELoss", {"alpha": 0.25, "gamma": 2}, THREE, (0.25, 1.5)),
    "k 3, alpha 0": ("IABCELoss", {"alpha": 0, "gamma": 2}, THREE, (0, 1.5)),
    "k 3, alpha 0.5": ("IABCELoss", {"alpha": 0.5, "gamma": 2}, THREE, (0.5, 1.5)),
    "k 3, alpha 0.75": ("IABCELoss", {"alpha": 0.75, "gamma": 2}, THREE, (0.75, 1.5)),
    "k 3, high-order cost": ("IABCELoss", {"alpha": 0.25, "gamma": 2}, THREE, (0.25, 1.5)),
    "k 3, GIoU-aware focal loss": ("GIoUAwareFocalLoss", {"alpha": 0.25, "gamma": 2}, THREE, (0.25, 1.5)),
    "k 3, position relations": ("IABCELoss", {"alpha": 0.25, "gamma": 2}, THREE, (0.25, 1.5)),
    "k 3, distinct queries": ("IABCELoss", {"alpha": 0.25, "gamma": 2}, THREE, (0.25, 1.5)),
    "k 3, DAC": ("IABCELoss", {"alpha": 0.25, "gamma": 2}, THREE, (0.25, 1.5)),
    "k 3, instructive routes": ("IABCELoss", {"alpha": 0.25, "gamma": 2}, THREE, (0.25, 1.5)),
    "k 3, dense data": ("IABCELoss", {"alpha": 0.25, "gamma": 2}, THREE, (0.25, 1.5)),
    "k 3, distinct queries, position relations": ("IABCELoss", {"alpha": 0.25, "gamma": 2}, THREE, (0.25, 1.5)),
    "k 3, distinct queries, dense data": ("IABCELoss", {"alpha": 0.25, "gamma": 2}, THREE, (0.25, 1.5)),
}


def test_variants_of_the_ablations(studies: ModuleType) -> None:
    study = importlib.import_module("ablations").STUDY
    assert [variant.name for variant in study.variants] == list(ABLATIONS)
    for variant in study.variants:
        cfg = load_config(variant.config, study.overrides_of(variant, 1))
        loss, weighting = cfg.model.criterion.losses[0], cfg.model.criterion.weighting
        own = {key: value for key, value in loss.items() if key not in ("_target_", "weight")}
        copies = cfg.model.criterion.matcher.copies
        pair = None if weighting is None else tuple(x for key, x in weighting.items() if key != "_target_")
        kind = getattr(loss._target_, "__name__", str(loss._target_).rsplit(".", 1)[-1])
        assert (kind, own, (list(copies.main), copies.enc), pair) == ABLATIONS[variant.name]
        assert loss.weight == 2 and cfg.train.max_iter == 1200 and cfg.dataloader.train.total_batch_size == 8


def test_ablations_of_equal_time(studies: ModuleType) -> None:
    """1,200 / 1.43 = 839 iterations, in tens; runs of "k 3" are those of the ablations."""
    module, plain = importlib.import_module("ablations_equal_time"), importlib.import_module("ablations").STUDY
    found = {variant.name: load_config(variant.config, variant.overrides) for variant in module.STUDY.variants}
    assert found["k 3, DAC, equal time (840)"].train.max_iter == 840
    assert len(found) == 1 + len(module.COSTS)
    assert module.STUDY.folder(module.STUDY.variants[0], 1) in {plain.folder(each, 1) for each in plain.variants}


@pytest.fixture
def trained(studies: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The seeds that were trained, in order; 10 times the seed is the AP. Seed 13 fails."""
    seeds = []

    def train(command: list[str], **options) -> subprocess.CompletedProcess:
        values = dict(text.split("=", 1) for text in command[4:-1])
        seeds.append(values["train.seed"])
        ap = 10.0 * int(values["train.seed"])
        row = {"iteration": 9, "bbox/AP": ap, "bbox/AP50": ap + 1, "bbox/AP75": ap + 2}
        lines = [{"iteration": 0, "total_loss": 1.0}, {**row, "bbox/AP": 0.0}, row]
        Path(values["train.output_dir"], "metrics.json").write_text("\n".join(map(json.dumps, lines)))
        return subprocess.CompletedProcess(command, int(values["train.seed"] == "13"))

    def load_alone(*args) -> DictConfig:
        """detectron2 replaces Python's import while it loads a config."""
        assert threading.current_thread() is threading.main_thread()
        return load_config(*args)

    monkeypatch.setattr(studies, "load_config", load_alone)
    monkeypatch.setattr(studies, "ROOT", tmp_path)
    monkeypatch.setattr(studies.subprocess, "run", train)
    return seeds


def small_study(studies: ModuleType):
    return studies.Study(name="test", variants=(studies.Variant("a, b / c", "quickstart/digits.py", (), "50.2"),))


def test_finished_runs_are_kept(studies: ModuleType, trained: list[str], capsys: pytest.CaptureFixture) -> None:
    study = small_study(studies)
    studies.main(study, ["--seeds", "1", "2", "--jobs", "2"])
    studies.main(study, ["--seeds", "1", "2", "4"])
    assert sorted(trained) == ["1", "2", "4"]
    expected = "| a, b / c | 3 | 23.3 (10.0 to 40.0) | 24.3 (11.0 to 41.0) | 25.3 (12.0 to 42.0) | 50.2 |"
    assert expected in capsys.readouterr().out.splitlines()


def test_a_run_of_another_config_does_not_count(studies: ModuleType, trained: list[str], tmp_path: Path) -> None:
    file = tmp_path / "digits.py"
    names = "dataloader", "lr_multiplier", "model", "optimizer", "train"
    text = "from align_detr.model_zoo import get_config\nparent = get_config('quickstart/digits.py')\n"
    text += "\n".join(f"{name} = parent.{name}" for name in names)
    file.write_text(text)
    study = small_study(studies)
    study = replace(study, variants=(replace(study.variants[0], config=str(file)),))
    studies.main(study, ["--seeds", "1"])
    file.write_text(text + "\noptimizer.lr = 1e-5\n")
    assert study.result(study.variants[0], 1) is None
    studies.main(study, ["--seeds", "1"])
    assert trained == ["1", "1"] and study.result(study.variants[0], 1)["AP"] == 10.0


def test_a_failure_ends_the_study(studies: ModuleType, trained: list[str]) -> None:
    with pytest.raises(SystemExit, match="a, b / c, seed 13 failed: see .*a_b_c-13/printed.txt"):
        studies.main(small_study(studies), ["--seeds", "3", "13", *map(str, range(100, 160))])
    assert trained == ["3", "13"]


def test_no_such_variant(studies: ModuleType) -> None:
    with pytest.raises(SystemExit, match="The study test has no variant x: `--table` lists its names"):
        studies.main(small_study(studies), ["--only", "x"])
