"""Write sizes.json and multiply_adds.json: parameters and multiply-adds of every config's network.

    python docs/site/sizes.py [--all]

Without --all only configs that are not in the files are counted. Numbers of networks of the DETR family are counted on
the meta device, without memory or arithmetic for them; the others, whose steps depend on what they find, run once.
"""

import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from flops import Detections, Network, resized  # noqa: E402

from align_detr import model_zoo  # noqa: E402
from align_detr.modeling.meta_arch import DETR  # noqa: E402

FILE = Path(__file__).with_name("sizes.json")
ADDS_FILE = Path(__file__).with_name("multiply_adds.json")
COUNTED: dict[str, float] = {}


def model_config(name: str) -> DictConfig:
    """Return the config of a network, with the teacher of a distilled one left out."""
    cfg = model_zoo.get_config(name).model
    if "teacher" in cfg:
        cfg.teacher = None
    return cfg


def parameters_of(name: str) -> float:
    """Return the parameters of a config's network in millions."""
    with torch.device("meta"):
        model = instantiate(model_config(name))
    return round(sum(p.numel() for p in model.parameters()) / 1e6, 3)


def size_of(name: str) -> tuple[int, int]:
    """Return the (height, width) that evaluation resizes a photo of 480x640 to, or a digits' one; DINO's papers have
    800x1280.
    """
    cfg = model_zoo.get_config(name)
    resize = cfg.dataloader.test.mapper.augmentations[-1]
    if "digits" in cfg.dataloader.test.dataset:
        return 128, 128
    if "dino_" in name and resize.short_edge_length[-1] == 800:
        return 800, 1280
    return resized(480, 640, resize.short_edge_length[-1], resize.max_size)


def sampling_flops(value: Sequence[int], sizes: Any, locations: Any, weights: Sequence[int], **others: Any) -> int:
    """Return the operations of deformable attention: 5 multiply-adds per point and channel, of two operations each."""
    return 2 * 5 * math.prod(weights) * value[3]


def counted(call: Callable[[], object]) -> float:
    """Return the multiply-adds of a call, in 10^9: of convolutions, matrix products and sampling, without norms."""
    mapping: dict[Any, Any] = {torch.ops.align_detr.deformable_attention: sampling_flops}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        call()
    return counter.get_total_flops() / 2 / 1e9


def multiply_adds_of(name: str) -> tuple[float, str]:
    """Return the multiply-adds of a config's network for one image, in 10^9, and the image's size, such as 800x1067.

    Masks, whose cost depends on what is found, are left out. Networks that differ in losses alone are counted once.
    """
    cfg, size = model_config(name), size_of(name)
    key = str((size, {part: value for part, value in cfg.items() if part != "criterion"}))
    if key not in COUNTED:
        COUNTED[key] = adds_of_network(cfg, *size)
    return float(f"{COUNTED[key]:.4g}"), f"{size[0]}x{size[1]}"


def adds_of_network(cfg: DictConfig, height: int, width: int) -> float:
    """Return the multiply-adds of a network for one image, in 10^9."""
    target = cfg["_target_"]
    device = "meta" if isinstance(target, type) and issubclass(target, DETR) else "cpu"
    torch.manual_seed(0)
    with torch.device(device):
        model = instantiate(cfg).eval()
        network = Network(model) if device == "meta" else Detections(model)
        image = torch.rand(3, height, width) * 255
        return counted(lambda: network(image))


def main(count_all: bool) -> None:
    """Write the files: known configs alone, in order."""
    for file, count in ((FILE, parameters_of), (ADDS_FILE, multiply_adds_of)):
        known = {} if count_all or not file.is_file() else json.loads(file.read_text())
        found = {name: known.get(name) or count(name) for name in model_zoo.names()}
        file.write_text(f"{{\n{lines_of(found)}\n}}\n")


def lines_of(found: dict[str, Any]) -> str:
    """Return one line of JSON for each entry."""
    return ",\n".join(f" {json.dumps(name)}: {json.dumps(value)}" for name, value in found.items())


if __name__ == "__main__":
    main("--all" in sys.argv[1:])
