"""The changes of a config that docs name, imported by a config of one's own outside the checkout."""

from pathlib import Path

import pytest

from align_detr.engine import FlatCosine
from align_detr.lazy_config import load_config
from align_detr.modeling import HighOrderCost
from align_detr.projects.detr_segmentation import DiceLoss, MaskBranch, MaskFocalLoss

OWN = """
from align_detr import model_zoo
from align_detr.data import mix_images
from align_detr.engine import flat_cosine_with_warmup
from align_detr.modeling import align, switch_to_high_order
from align_detr.projects.detr_segmentation import SegmentationDeformableDETR, add_masks

cfg = model_zoo.get_config("dino/dino_r50_4scale_12ep.py")
model, optimizer, train, dataloader = cfg.model, cfg.optimizer, cfg.train, cfg.dataloader
align(model)
switch_to_high_order(model, switch=0.5)
model["_target_"] = SegmentationDeformableDETR
add_masks(model, in_channels=dict(res4=1024, res3=512, res2=256), level=2)
mix_images(dataloader, start=0.1, stop=0.5)
lr_multiplier = flat_cosine_with_warmup(12, warmup_epochs=0.6, flat_until=6, constant_from=9)
"""


def test_changes_are_imported_from_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    cfg = load_config("own.py")
    assert [x.start for x in cfg.dataloader.train.mixes] == [0.1, 0.1]
    matcher = cfg.model.criterion.matcher
    assert matcher.switch == 0.5 and matcher.late_costs[0]._target_ is HighOrderCost
    schedule = cfg.lr_multiplier.scheduler
    assert schedule._target_ is FlatCosine and (schedule.flat_until, schedule.constant_from) == (0.5, 0.75)
    assert cfg.lr_multiplier.warmup_length == pytest.approx(0.05)
    assert cfg.model.masks._target_ is MaskBranch and cfg.model.masks.head.in_features == ["res4", "res3", "res2"]
    assert [x._target_ for x in cfg.model.criterion.losses[-2:]] == [MaskFocalLoss, DiceLoss]
