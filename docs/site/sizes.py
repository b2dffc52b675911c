"""Write sizes.json: the parameters of every config's network in millions, counted without memory for them."""

import json
import sys
from pathlib import Path

import torch
from detectron2.config import instantiate

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from align_detr import model_zoo  # noqa: E402


def parameters_of(name: str) -> float:
    """Return the parameters of a config's network in millions, with the teacher of a distilled one left out."""
    cfg = model_zoo.get_config(name).model
    if "teacher" in cfg:
        cfg.teacher = None
    with torch.device("meta"):
        model = instantiate(cfg)
    return round(sum(p.numel() for p in model.parameters()) / 1e6, 3)


if __name__ == "__main__":
    found = {name: parameters_of(name) for name in model_zoo.names()}
    Path(__file__).with_name("sizes.json").write_text(json.dumps(found, indent=1) + "\n")
