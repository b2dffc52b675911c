"""Official DETR checkpoints: every key has a place of the same shape here, and the parameter counts are equal."""

import json

import pytest
import torch
from detectron2.config import instantiate
from torch import nn

from align_detr import model_zoo
from align_detr.checkpoint.detr import coco_category_ids, convert_official_detr, select_class_rows
from support.paths import GOLDEN

MANIFESTS = sorted((GOLDEN / "manifests").glob("raw_detr_r50*.json"))
CONFIGS = {"raw_detr_r50": "detr/detr_r50_500ep.py", "raw_detr_r50_dc5": "detr/detr_r50_dc5_500ep.py"}


def build(config: str, num_classes: int) -> nn.Module:
    cfg = model_zoo.get_config(config)
    cfg.model.head.num_classes = num_classes
    return instantiate(cfg.model)


@pytest.mark.skipif(not MANIFESTS, reason=f"no manifests in {GOLDEN} (set ALIGN_DETR_GOLDEN)")
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_counts_and_keys(path) -> None:
    manifest = json.loads(path.read_text())
    shapes = manifest["state_dict"]
    model = build(CONFIGS[path.stem], num_classes=shapes["class_embed.bias"][0] - 1)
    assert sum(p.numel() for p in model.parameters()) == manifest["params_total"]
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == manifest["params_trainable"]
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    converted = convert_official_detr(state, num_classes=model.num_classes)
    assert len(converted) == manifest["num_keys"]
    assert {key: tuple(value.shape) for key, value in converted.items()} == {
        key: tuple(value.shape) for key, value in model.state_dict().items()
    }


@pytest.mark.parametrize("config", ["detr/detr_r101_500ep.py", "detr/detr_r101_dc5_500ep.py"])
def test_r101_has_60_million_parameters(config: str) -> None:
    assert round(sum(p.numel() for p in build(config, 91).parameters()) / 1e6) == 60


def test_coco_rows_are_picked_by_id() -> None:
    rows = torch.arange(92.0)[:, None]
    picked = select_class_rows(rows, num_classes=80)[:, 0].tolist()
    assert picked == [*coco_category_ids(), 91] and len(picked) == 81
    assert picked[:13] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14]  # 12 is not in use
    assert select_class_rows(rows, num_classes=3) is rows
