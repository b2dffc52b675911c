"""TSP-RCNN at full size: the optimizer of every parameter."""

import json

import pytest
import torch
from detectron2.config import instantiate

from align_detr import model_zoo
from align_detr.projects.tsp.checkpoint import convert_official_tsp_rcnn
from support.paths import GOLDEN

GROUPS = GOLDEN / "manifests" / "tsp_rcnn_r50_param_groups.json"


@pytest.mark.skipif(not GROUPS.is_file(), reason=f"no manifests in {GOLDEN} (set ALIGN_DETR_GOLDEN)")
def test_optimizer_groups() -> None:
    """Every parameter has its optimizer, learning rate, weight decay and clipping."""
    manifest = json.loads(GROUPS.read_text())
    cfg = model_zoo.get_config("TSP/tsp_rcnn_r50_36ep")
    model = instantiate(cfg.model)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    names = {id(p): name for name, p in model.named_parameters()}
    found = {
        names[id(p)]: (group["optimizer"], group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    entries = manifest["groups"]
    place = {old: next(iter(convert_official_tsp_rcnn({old: torch.empty(0)}))) for old in entries}
    assert {place[old] for old in entries} == found.keys()
    for old, entry in entries.items():
        optimizer_name, lr, decay = found[place[old]]
        assert optimizer_name == entry["optimizer"].lower(), old
        assert entry["clipped"] == (optimizer_name == "adamw")
        assert (lr, decay) == pytest.approx((entry["lr"], entry["weight_decay"]), rel=1e-9), old
    assert optimizer.clip_max_norm == manifest["clip_max_norm"]
    assert cfg.train.clip_grad.max_norm == 0
