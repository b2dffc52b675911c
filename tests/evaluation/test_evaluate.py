"""Test sets of a config: one or several, each with its loader, its evaluator and its name among the results."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from detectron2.config import LazyCall as L
from detectron2.evaluation import DatasetEvaluator
from omegaconf import DictConfig, OmegaConf

from align_detr.data import build_test_loader
from align_detr.errors import ConfigError
from align_detr.evaluation import RESULTS_FILE, DetectionEvaluator, build_evaluation_sets, evaluate, evaluate_sets
from support.oracle import PerfectDetector, records

BOX = (10.0, 20.0, 40.0, 60.0)


@pytest.fixture
def two_sets(register: Callable[..., str]) -> Iterator[list[str]]:
    """Register "day", with an object in each of two images, and "night", of whose two images one has an object."""
    day, night = records([[(0, BOX)], [(0, BOX)]]), records([[(0, BOX)], []])
    for number, record in enumerate(night):
        record["image_id"] = number + 100
    yield [register(day, "day", thing_classes=["owl"]), register(night, "night", thing_classes=["owl"])]


def identity(record: dict) -> dict:
    return record


def loader(names: str | list[str]) -> DictConfig:
    return L(build_test_loader)(dataset=names, mapper=identity, num_workers=0)


def config(test: object, folder: Path, evaluator: object = None) -> DictConfig:
    """Return the node `dataloader` of a config as configs/common/data/ has it."""
    if evaluator is None:
        evaluator = L(DetectionEvaluator)(
            dataset_name="${..test.dataset}", output_dir="${...train.output_dir}/inference"
        )
    return OmegaConf.create(
        {"dataloader": {"test": test, "evaluator": evaluator}, "train": {"output_dir": str(folder)}},
        flags={"allow_objects": True},
    ).dataloader


def test_one_set_keeps_its_results_plain(two_sets: list[str], tmp_path: Path) -> None:
    for number, test in enumerate([loader("day"), loader(["day"]), [loader("day")], [loader(["day"])]]):
        folder = tmp_path / str(number)
        results = evaluate(config(test, folder), PerfectDetector("day"))
        assert results["bbox"]["AP"] == pytest.approx(100)
        assert (folder / "inference" / RESULTS_FILE).is_file()


@pytest.mark.parametrize("as_list", [False, True], ids=["names", "loaders"])
def test_several_sets_have_results_under_their_names(two_sets: list[str], tmp_path: Path, as_list: bool) -> None:
    """A model that knows the day alone finds, in the night's images, nothing."""
    model = PerfectDetector("day", "night")
    model.found[100] = model.found[101]
    test = [loader(name) for name in two_sets] if as_list else loader(two_sets)
    results = evaluate(config(test, tmp_path), model)
    assert list(results) == ["day", "night"]
    assert results["day"]["bbox"]["AP"] == pytest.approx(100) and results["night"]["bbox"]["AP"] == 0
    assert sorted(path.parent.name for path in (tmp_path / "inference").rglob(RESULTS_FILE)) == two_sets


def test_each_set_may_have_an_evaluator(two_sets: list[str], tmp_path: Path) -> None:
    evaluators = [
        L(DetectionEvaluator)(dataset_name=name, max_detections=number) for number, name in enumerate(two_sets, 7)
    ]
    sets = build_evaluation_sets(config([loader(name) for name in two_sets], tmp_path, evaluators))
    assert [(one.name, one.evaluator.max_detections) for one in sets] == [("day", 7), ("night", 8)]
    with pytest.raises(ConfigError, match="lists 1 evaluators, but dataloader.test has 2 data sets"):
        build_evaluation_sets(config(loader(two_sets), tmp_path, evaluators[:1]))


def test_no_set_at_all_is_refused(tmp_path: Path) -> None:
    for test in ([], loader([])):
        with pytest.raises(ConfigError, match="dataloader.test names no data set"):
            build_evaluation_sets(config(test, tmp_path))


def test_a_set_that_is_named_twice_is_refused(two_sets: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="dataloader.test names the data set 'day' more than once"):
        build_evaluation_sets(config(loader(["day", "night", "day"]), tmp_path))


class CountImages(DatasetEvaluator):
    """An evaluator that knows no data set."""

    def reset(self) -> None:
        self.images = 0

    def process(self, inputs: list, outputs: list) -> None:
        self.images += len(inputs)

    def evaluate(self) -> dict:
        return {"seen": {"images": self.images}}


def test_other_evaluators_run_too(two_sets: list[str], tmp_path: Path) -> None:
    model = PerfectDetector(*two_sets)
    assert evaluate(config(loader("day"), tmp_path, L(CountImages)()), model) == {"seen": {"images": 2}}
    both = [L(CountImages)(), L(DetectionEvaluator)(dataset_name="night")]
    assert set(evaluate(config(loader("night"), tmp_path, both), model)) == {"seen", "bbox"}


def test_sets_evaluate_again_with_another_model(two_sets: list[str], tmp_path: Path) -> None:
    """What is built once serves all evaluations of a run; the model stays in its mode."""
    sets = build_evaluation_sets(config(loader("day"), tmp_path))
    model = PerfectDetector("day")
    model.train()
    assert evaluate_sets(sets, model)["bbox"]["AP"] == pytest.approx(100) and model.training
    model.found = dict.fromkeys(model.found, PerfectDetector("night").found[101])  # which has no object
    assert evaluate_sets(sets, model)["bbox"]["AP"] == 0
