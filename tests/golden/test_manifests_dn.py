"""DN-DETR's manifest: parameter counts, and every key with a place of the same shape here."""

import json

import pytest
import torch
from detectron2.config import instantiate

from align_detr import model_zoo
from align_detr.checkpoint.conversion import convert
from support.paths import GOLDEN

MANIFESTS = sorted((GOLDEN / "manifests").glob("dn_detr_r50.json"))


@pytest.mark.skipif(not MANIFESTS, reason=f"no manifests in {GOLDEN} (set ALIGN_DETR_GOLDEN)")
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_counts_and_keys(path) -> None:
    manifest = json.loads(path.read_text())
    shapes = manifest["state_dict"]
    cfg = model_zoo.get_config("dn_detr/dn_detr_r50_50ep.py")
    cfg.model.head.num_classes = shapes["class_embed.bias"][0]  # the one place: denoising follows
    model = instantiate(cfg.model)
    assert sum(p.numel() for p in model.parameters()) == manifest["params_total"]
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == manifest["params_trainable"]
    assert len(shapes) == manifest["num_keys"]
    converted = convert({key: torch.empty(shape, device="meta") for key, shape in shapes.items()}, num_classes=None)
    assert {key: tuple(value.shape) for key, value in converted.items()} == {
        key: tuple(value.shape) for key, value in model.state_dict().items()
    }
    again = sum(len(names) - 1 for names in manifest["shared_keys"])  # one tensor under several names has one here
    assert len(converted) == manifest["num_keys"] - again
