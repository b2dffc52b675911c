"""Write sizes.json: the parameters of every config's network in millions, counted without memory for them.

    python docs/site/sizes.py [--all]

Without --all only configs that are not in the file are counted.
"""

import json
import sys
from pathlib import Path

import torch
from detectron2.config import instantiate

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from align_detr import model_zoo  # noqa: E402

FILE = Path(__file__).with_name("sizes.json")


def parameters_of(name: str) -> float:
    """Return the parameters of a config's network in millions, with the teacher of a distilled one left out."""
    cfg = model_zoo.get_config(name).model
    if "teacher" in cfg:
        cfg.teacher = None
    with torch.device("meta"):
        model = instantiate(cfg)
    return round(sum(p.numel() for p in model.parameters()) / 1e6, 3)


def main(count_all: bool) -> None:
    """Write the file: known configs alone, in order."""
    known = {} if count_all else json.loads(FILE.read_text())
    found = {name: known.get(name) or parameters_of(name) for name in model_zoo.names()}
    FILE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main("--all" in sys.argv[1:])
