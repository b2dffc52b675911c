"""A tiny training run: data, config file and results."""

import json
import logging
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

CONFIG = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from detectron2.config import LazyCall as L
from align_detr import model_zoo
from align_detr.data import build_test_loader, build_train_loader
from align_detr.evaluation import DetectionEvaluator
import tiny_detector

tiny_detector.register(Path({root!r}))
model = L(tiny_detector.TinyDetector)(num_classes=2)
train = model_zoo.get_config("common/train.py").train
train.update(output_dir={output!r}, epochs=3, log_period=1, device="cpu", seed=3)
optimizer = model_zoo.get_config("common/optim.py").AdamW
optimizer.lr = 1e-2
lr_multiplier = model_zoo.get_config("common/schedule.py").step_12ep
dataloader = dict(
    train=L(build_train_loader)(dataset="tiny_train", mapper=tiny_detector.map_record, total_batch_size=4,
                                num_workers=0, seed=5, aspect_ratio_grouping=False),
    test=L(build_test_loader)(dataset="tiny_val", mapper=tiny_detector.map_record, num_workers=0),
    evaluator=L(DetectionEvaluator)(
        dataset_name="${{..test.dataset}}", output_dir="${{...train.output_dir}}/inference"
    ),
)
"""


class TinyRun:
    """A config file and the output folder it names."""

    def __init__(self, root: Path) -> None:
        from tiny_detector import write_data

        self.output = root / "output"
        self.config = root / "tiny.py"
        write_data(root / "data")
        self.config.write_text(CONFIG.format(tests=str(HERE), root=str(root / "data"), output=str(self.output)))

    def train(self, *arguments: str) -> int:
        """Run the training command in this process; return its exit status."""
        from align_detr.cli.train import main

        return main(["--config-file", str(self.config), *arguments])

    def metrics(self, output: Path | None = None) -> list[dict]:
        """Return the lines of metrics.json."""
        return [json.loads(line) for line in ((output or self.output) / "metrics.json").read_text().splitlines()]


@pytest.fixture
def tiny_run(tmp_path: Path) -> TinyRun:
    return TinyRun(tmp_path)


@pytest.fixture(autouse=True)
def untouched_logging():
    """Restore the loggers, so that those of a run do not reach other tests."""
    names = ("align_detr", "detectron2", "fvcore")
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    yield
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)
