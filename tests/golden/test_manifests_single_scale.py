"""detrex's single-scale checkpoints: every key has a place of the same shape in the config's model, and the parameter
counts are equal.
"""

import json
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate

from align_detr import model_zoo
from align_detr.checkpoint.conversion import convert
from support.paths import GOLDEN

CONFIGS = {
    "conditional_detr_r50": "conditional_detr/conditional_detr_r50_50ep.py",
    "dab_detr_r50": "dab_detr/dab_detr_r50_50ep.py",
    "dab_detr_r50_3patterns": "dab_detr/dab_detr_r50_3patterns_50ep.py",
    "align_dab_detr_r50": "align_detr/align_dab_detr_r50_50ep.py",
    "align_dab_detr_r50_dc5": "align_detr/align_dab_detr_r50_dc5_50ep.py",
    "group_detr_r50": "group_detr/group_detr_r50_50ep.py",
}
MANIFESTS = sorted(path for path in (GOLDEN / "manifests").glob("*.json") if path.stem in CONFIGS)


@pytest.mark.skipif(not MANIFESTS, reason=f"no manifests in {GOLDEN} (set ALIGN_DETR_GOLDEN)")
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_counts_and_keys(path: Path) -> None:
    manifest = json.loads(path.read_text())
    shapes = manifest["state_dict"]
    cfg = model_zoo.get_config(CONFIGS[path.stem])
    cfg.model.head.num_classes = shapes["class_embed.bias"][0]
    model = instantiate(cfg.model)
    assert sum(p.numel() for p in model.parameters()) == manifest["params_total"]
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == manifest["params_trainable"]
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    converted = convert(state, num_classes=model.num_classes)
    assert {key: tuple(value.shape) for key, value in converted.items()} == {
        key: tuple(value.shape) for key, value in model.state_dict().items()
    }
    # what has no place of its own is the second name of a tensor
    assert len(state) - len(converted) == sum(len(names) - 1 for names in manifest["shared_keys"])


@pytest.mark.parametrize(
    ("config", "millions"),
    [("conditional_detr/conditional_detr_r101_50ep.py", 62), ("dab_detr/dab_detr_r101_dc5_50ep.py", 63)],
)
def test_r101(config: str, millions: int) -> None:
    """19 M more than with a ResNet-50."""
    model = instantiate(model_zoo.get_config(config).model)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == millions
