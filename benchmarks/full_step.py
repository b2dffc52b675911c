"""One training step of a full-size detector, to show that it fits into memory.

    python benchmarks/full_step.py [config] [--device cuda]

Two noise images of 480x640 with 10 objects each and random weights, in float32. Prints the total of the losses, whether
all losses and gradients are finite, and the peak memory: of the process on the CPU, of PyTorch's allocator on CUDA. The
time of the second of two steps is printed on CUDA only: on a CPU it depends on the machine's other work.
"""

import argparse
import resource
import sys
import time
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from align_detr import model_zoo

HEIGHT, WIDTH, OBJECTS, IMAGES = 480, 640, 10, 2


def random_image(num_classes: int) -> dict[str, Any]:
    """Return a noise image with `OBJECTS` random boxes, in the mapper's form."""
    corners = torch.rand(OBJECTS, 2, 2).sort(dim=1).values * torch.tensor([WIDTH, HEIGHT])
    instances = Instances(
        (HEIGHT, WIDTH),
        gt_boxes=Boxes(corners.flatten(1)),
        gt_classes=torch.randint(num_classes, (OBJECTS,)),
    )
    image = torch.randint(256, (3, HEIGHT, WIDTH), dtype=torch.uint8)
    return {"image": image, "instances": instances, "height": HEIGHT, "width": WIDTH}


def step(model: nn.Module, optimizer: torch.optim.Optimizer, max_norm: float) -> tuple[dict[str, Tensor], Tensor]:
    """Make one step; return the losses by name and the norm of all gradients before clipping."""
    optimizer.zero_grad()
    losses = model([random_image(model.num_classes) for _ in range(IMAGES)])
    sum(losses.values()).backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    return losses, norm


def peak_memory(device: str) -> float:
    """Return the peak memory in 10^9 bytes."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def main() -> None:
    """Exit with 1 if a loss or a gradient is not finite."""
    parser = argparse.ArgumentParser(description="One training step of a full-size detector.")
    parser.add_argument("config", nargs="?", default="align_detr/align_dino_r50_4scale_12ep.py")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    args = parser.parse_args()
    torch.manual_seed(0)
    cfg = model_zoo.get_config(args.config)
    model = instantiate(cfg.model).to(args.device).train()
    cfg.optimizer.params.model = model
    optimizer, max_norm = instantiate(cfg.optimizer), cfg.train.clip_grad.max_norm
    losses, norm = step(model, optimizer, max_norm)
    if args.device == "cuda":
        torch.cuda.synchronize()
        start = time.perf_counter()
        losses, norm = step(model, optimizer, max_norm)
        torch.cuda.synchronize()
        print(f"{time.perf_counter() - start:.2f} s for the second step")
    finite = all(bool(torch.isfinite(x)) for x in [*losses.values(), norm])
    print(f"{args.config} on {args.device}: {IMAGES} images of {HEIGHT}x{WIDTH}, {OBJECTS} objects each")
    print(f"{len(losses)} losses, total {sum(losses.values()).item():.2f}; norm of the gradients {norm.item():.3g}")
    print("all finite" if finite else "NOT ALL FINITE: " + ", ".join(f"{k} {v.item()}" for k, v in losses.items()))
    print(f"peak memory {peak_memory(args.device):.2f} GB")
    sys.exit(not finite)


if __name__ == "__main__":
    main()
