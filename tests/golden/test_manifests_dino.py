"""Checkpoints of DINO and Align-DETR: every key has a place of the same shape in the config's model, and the parameter
counts are equal.
"""

import json
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate

from align_detr import model_zoo
from align_detr.checkpoint.conversion import convert
from align_detr.checkpoint.detr import coco_category_ids
from support.paths import GOLDEN

CONFIGS = {
    "dino_r50_4scale": "dino/dino_r50_4scale_12ep.py",
    "align_detr_r50_dino": "align_detr/align_dino_r50_4scale_12ep.py",
    "raw_dino_r50_4scale": "dino/dino_r50_4scale_official.py",
}
MANIFESTS = sorted(path for path in (GOLDEN / "manifests").glob("*.json") if path.stem in CONFIGS)
UNUSED = 256  # DINO's own table of denoising labels has a row that is never drawn


@pytest.mark.skipif(not MANIFESTS, reason=f"no manifests in {GOLDEN} (set ALIGN_DETR_GOLDEN)")
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_counts_and_keys(path: Path) -> None:
    manifest = json.loads(path.read_text())
    shapes = manifest["state_dict"]
    cfg = model_zoo.get_config(CONFIGS[path.stem])
    cfg.model.head.num_classes = shapes["class_embed.0.bias"][0]
    model = instantiate(cfg.model)
    unused = UNUSED if path.stem.startswith("raw_") else 0
    assert sum(p.numel() for p in model.parameters()) == manifest["params_total"] - unused
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == manifest["params_trainable"] - unused
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    converted = convert(state, num_classes=model.num_classes)
    assert {key: tuple(value.shape) for key, value in converted.items()} == {
        key: tuple(value.shape) for key, value in model.state_dict().items()
    }
    # what has no place of its own is another name of a tensor
    assert len(state) - len(converted) == sum(len(names) - 1 for names in manifest["shared_keys"])


def test_rows_of_cocos_classes() -> None:
    """Of the original 91 rows, for classes and denoising labels alike; the labels' row 91 stands for nothing."""
    rows = torch.arange(92.0)[:, None]
    state = {
        "transformer.level_embed": torch.zeros(1, 4),
        "transformer.decoder.layers.0.norm1.bias": torch.zeros(1),
        "transformer.decoder.bbox_embed.0.layers.0.bias": torch.zeros(1),
        "transformer.enc_out_class_embed.weight": rows[:-1],
        "class_embed.0.weight": rows[:-1],
        "label_enc.weight": rows,
    }
    ids = coco_category_ids()
    converted = convert(state, num_classes=80)
    for place in ("head.class_embed", "proposals.class_embed", "queries.label_embed"):
        assert converted[f"{place}.weight"].flatten().tolist() == ids, place
    assert convert(state, num_classes=91)["queries.label_embed.weight"].flatten().tolist() == list(range(91))


def test_original_settings() -> None:
    """Positions with temperature 20 and no offset, logits bounded with 1e-5, one head, box noise 0.4."""
    model = instantiate(model_zoo.get_config(CONFIGS["raw_dino_r50_4scale"]).model)
    assert (model.neck.position.temperature, model.neck.position.offset) == (20, 0)
    assert model.decoder.query_position.temperature == 10000
    assert model.head.eps == 1e-5 and model.head.class_embed.out_features == 80
    assert (model.queries.dn_number, model.queries.label_noise, model.queries.box_noise) == (100, 0.5, 0.4)
    detrex = instantiate(model_zoo.get_config(CONFIGS["dino_r50_4scale"]).model)
    assert (detrex.neck.position.temperature, detrex.neck.position.offset) == (10000, -0.5)
    assert detrex.head.eps == 1e-3 and detrex.queries.box_noise == 1.0
