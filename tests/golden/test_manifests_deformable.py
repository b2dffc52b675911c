"""Checkpoints of the deformable detectors: every key has a place of the same shape in the config's model, and the
parameter counts are equal.
"""

import json
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from torch import nn

from align_detr import model_zoo
from align_detr.checkpoint.conversion import convert
from align_detr.checkpoint.detr import coco_category_ids
from support.paths import GOLDEN

CONFIGS = {
    "deformable_detr_r50": "deformable_detr/deformable_detr_r50_50ep.py",
    "deformable_detr_r50_refine": "deformable_detr/deformable_detr_r50_refine_50ep.py",
    "deformable_detr_r50_two_stage": "deformable_detr/deformable_detr_r50_two_stage_50ep.py",
    "raw_deformable_detr_r50": "deformable_detr/deformable_detr_r50_50ep.py",
    "raw_deformable_detr_r50_refine": "deformable_detr/deformable_detr_r50_refine_50ep.py",
    "raw_deformable_detr_r50_single_scale": "deformable_detr/deformable_detr_r50_single_scale_50ep.py",
    "raw_deformable_detr_r50_two_stage": "deformable_detr/deformable_detr_r50_two_stage_50ep.py",
    "dab_deformable_detr_r50": "dab_deformable_detr/dab_deformable_detr_r50_50ep.py",
    "dab_deformable_detr_r50_two_stage": "dab_deformable_detr/dab_deformable_detr_r50_two_stage_50ep.py",
    "h_deformable_detr_r50_two_stage": "h_deformable_detr/h_deformable_detr_r50_12ep.py",
}
MANIFESTS = sorted(path for path in (GOLDEN / "manifests").glob("*.json") if path.stem in CONFIGS)


def build(name: str, num_classes: int) -> nn.Module:
    cfg = model_zoo.get_config(CONFIGS[name])
    cfg.model.head.num_classes = num_classes
    if not name.startswith("raw_"):
        cfg.model.backbone.freeze_at = 1  # detrex freezes the stem alone
    return instantiate(cfg.model)


@pytest.mark.skipif(not MANIFESTS, reason=f"no manifests in {GOLDEN} (set ALIGN_DETR_GOLDEN)")
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_counts_and_keys(path: Path) -> None:
    manifest = json.loads(path.read_text())
    shapes = manifest["state_dict"]
    model = build(path.stem, num_classes=shapes["class_embed.0.bias"][0])
    assert sum(p.numel() for p in model.parameters()) == manifest["params_total"]
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == manifest["params_trainable"]
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    converted = convert(state, num_classes=model.num_classes)
    assert {key: tuple(value.shape) for key, value in converted.items()} == {
        key: tuple(value.shape) for key, value in model.state_dict().items()
    }
    # what has no place of its own is another name of a tensor; one table of queries becomes two
    halves = "queries.position.weight" in converted
    assert len(state) - len(converted) + halves == sum(len(names) - 1 for names in manifest["shared_keys"])


def test_rows_of_cocos_classes() -> None:
    """The first class of two-stage proposals is "object" and stays; all others are picked by their id."""
    state = {
        "transformer.level_embed": torch.zeros(1, 4),
        "transformer.decoder.bbox_embed.0.layers.0.bias": torch.zeros(1),
        "transformer.decoder.layers.0.norm1.bias": torch.zeros(1),
        "class_embed.0.bias": torch.arange(91.0),
        "class_embed.1.bias": torch.arange(91.0),
    }
    converted = convert(state, num_classes=80)
    assert converted["head.class_embed.0.bias"].tolist() == coco_category_ids()
    assert converted["proposals.class_embed.bias"].tolist() == coco_category_ids()
    two_stage = convert({**state, "transformer.pos_trans.weight": torch.zeros(1)}, num_classes=80)
    assert two_stage["head.class_embed.0.bias"].tolist() == coco_category_ids()
    assert two_stage["proposals.class_embed.bias"].tolist() == [0, *coco_category_ids()[1:]]
    assert len(convert(state, num_classes=20)["head.class_embed.0.bias"]) == 91
