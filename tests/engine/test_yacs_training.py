"""detectron2's DefaultTrainer with the two yacs keys: whose optimizer it takes."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.engine import DefaultTrainer
from detectron2.modeling import build_model
from detectron2.solver import LRMultiplier
from detectron2.utils.events import EventStorage

from align_detr.config import add_align_detr_config
from support.inputs import image_input
from support.paths import PROJECT


def small_yacs(folder: Path) -> Any:
    """Return keys that name a small Align-DAB-DETR; its own rate is 1e-3, its clipping at 1."""
    cfg = get_cfg()
    add_align_detr_config(cfg)
    cfg.MODEL.DEVICE, cfg.OUTPUT_DIR, cfg.MODEL.META_ARCHITECTURE = "cpu", str(folder), "DABDETR"
    cfg.MODEL.ALIGN_DETR.CONFIG = "quickstart/digits_align_dab_detr.py"
    cfg.MODEL.ALIGN_DETR.OVERRIDES = ["train.lr_scaling=linear", "train.clip_grad.max_norm=0.01"]
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER = 32, 10
    return cfg


class OfOneBatch:
    """A data loader, and no hooks."""

    @classmethod
    def build_train_loader(cls, cfg: Any) -> list:
        torch.manual_seed(0)
        return [[image_input(64, 64, 2)]] * 2

    def build_hooks(self) -> list:
        return []


def documented_trainer() -> type:
    """Return the class that docs/extending.md defines."""
    blocks = re.findall(r"```python\n(.*?)```", (PROJECT / "docs/extending.md").read_text(), re.DOTALL)
    (code,) = [block for block in blocks if "DefaultTrainer" in block]
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    return namespace["Trainer"]


def test_the_documented_trainer_takes_the_config_s_optimizer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """AdamW at the config's rate for twice its batch, its schedule, and a clipped gradient; nothing is warned of."""
    kind = type("Trainer", (OfOneBatch, documented_trainer()), {})
    with caplog.at_level(logging.WARNING, logger="align_detr"):
        trainer = kind(small_yacs(tmp_path))
    assert "SGD" not in caplog.text
    optimizer = trainer._trainer.optimizer
    assert type(optimizer) is torch.optim.AdamW
    assert {group["initial_lr"] for group in optimizer.param_groups} == {2e-3}
    assert isinstance(trainer.scheduler, LRMultiplier) and trainer.scheduler.get_last_lr()[0] < 1e-4  # warm-up
    with EventStorage():
        trainer._trainer.iter = 0
        trainer._trainer.run_step()
    norms = [p.grad.norm() for group in optimizer.param_groups for p in group["params"]]
    assert torch.stack(norms).norm() == pytest.approx(0.01, rel=1e-3)


def test_a_default_trainer_warns_of_its_sgd(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kind = type("PlainTrainer", (OfOneBatch, DefaultTrainer), {})
    with caplog.at_level(logging.WARNING, logger="align_detr"):
        kind(small_yacs(tmp_path))
    (warning,) = [record.getMessage() for record in caplog.records if "SGD" in record.getMessage()]
    assert warning.startswith("PlainTrainer takes detectron2's SGD") and "align_detr.config" in warning


def test_overrides_that_only_our_training_reads_are_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Those that optimizer, schedule and clipping are built from are not."""
    cfg = small_yacs(tmp_path)
    cfg.MODEL.ALIGN_DETR.OVERRIDES += ["model.head.num_classes=3", "train.freeze=[backbone]", "train.ema.enabled=True"]
    with caplog.at_level(logging.WARNING, logger="align_detr"):
        build_model(cfg), build_model(cfg)
    (warning,) = [record.getMessage() for record in caplog.records if "OVERRIDES" in record.getMessage()]
    assert "sets train.freeze, train.ema.enabled, which only `align-detr train` reads" in warning
