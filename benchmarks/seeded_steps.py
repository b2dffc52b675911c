"""Losses of seeded training steps as exact numbers: a refactoring leaves every line as it is.

    python benchmarks/seeded_steps.py [config ...] > before.txt

Three steps of AdamW per config on two noise images, float32, one thread, on the CPU. Each line holds the config, the
step, the number of losses, their sum and a digest of all of them; the last line of a config is a digest of the scores
of its detections. Numbers are hexadecimal floats, so two runs are equal only if every bit is. They depend on machine
and library versions: compare runs of one machine.
"""

import hashlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from align_detr import model_zoo

CONFIGS = (
    "quickstart/digits_detr.py",
    "quickstart/digits.py",
    "quickstart/digits_align_dab_detr.py",
    "TSP/tsp_fcos_digits.py",
    "TSP/tsp_rcnn_digits.py",
)
STEPS = 3


def random_image(height: int, width: int, objects: int, num_classes: int) -> dict[str, Any]:
    """Return a noise image (3, height, width) with random boxes, in the mapper's form."""
    corners = torch.rand(objects, 2, 2).sort(dim=1).values * torch.tensor([width, height])
    image = torch.randint(256, (3, height, width), dtype=torch.uint8)
    classes = torch.randint(num_classes, (objects,))
    instances = Instances((height, width), gt_boxes=Boxes(corners.flatten(1)), gt_classes=classes)
    return {"image": image, "height": height, "width": width, "instances": instances}


def digest(content: bytes) -> str:
    """Return 16 hexadecimal digits that stand for `content`."""
    return hashlib.sha256(content).hexdigest()[:16]


def seeded_steps(config: str) -> Iterator[str]:
    """Yield one line per step, and one for the detections after the last."""
    torch.manual_seed(0)
    model: nn.Module = instantiate(model_zoo.get_config(config).model).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    torch.manual_seed(1)
    batch = [random_image(96, 70, 3, model.num_classes), random_image(64, 96, 5, model.num_classes)]
    for step in range(STEPS):
        torch.manual_seed(2 + step)
        with EventStorage():
            losses = model(batch)
        total = sum(losses.values())
        text = " ".join(f"{name}={value.item().hex()}" for name, value in sorted(losses.items()))
        yield f"{config} step {step}: {len(losses)} losses, sum {total.item().hex()}, digest {digest(text.encode())}"
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    with torch.no_grad():
        found = [output["instances"] for output in model.eval()(batch)]
    yield f"{config} detections: digest {digest(b''.join(x.scores.numpy().tobytes() for x in found))}"


def main() -> None:
    """Print the lines of the configs on the command line, or of all."""
    torch.set_num_threads(1)
    for config in sys.argv[1:] or CONFIGS:
        for line in seeded_steps(config):
            print(line, flush=True)


if __name__ == "__main__":
    main()
