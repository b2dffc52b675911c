"""Detectors in two processes, of which one has no object: what DistributedDataParallel needs of every parameter."""

from pathlib import Path
from typing import Any

import torch
from detectron2.config import instantiate
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from align_detr.layers.reduce import alone
from align_detr.modeling.queries import ContrastiveDenoisingQueries, DenoisingQueries
from support.detectors import SINGLE_SCALE, single_scale_detector, tiny_denoising_detr
from support.inputs import image_input
from support.processes import in_two_processes
from support.shrink import small_model


def difference_to_one_process(rank: int, kind: str) -> float:
    """The norm of the difference of the exchanged gradient to that of one process with all images, over its norm."""
    torch.manual_seed(0)
    detr = instantiate(small_model("detr/detr_r50_500ep.py", dropout=0.0))
    model = (detr if kind == "detr" else single_scale_detector(kind)).train()
    torch.manual_seed(7)
    batches = [[image_input(96, 70, count), image_input(64, 96, 1)] for count in (5, 0)]
    with alone():
        alone_found = gradient(model, [*batches[0], *batches[1]])
    together = gradient(DistributedDataParallel(model), batches[rank])
    return float((together - alone_found).norm() / alone_found.norm())


def gradient(model: nn.Module, batch: list[dict[str, Any]]) -> Tensor:
    model.zero_grad()
    sum(model(batch).values()).backward()
    return torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None])


def losses_and_gradients(rank: int) -> dict[str, tuple[list[str], str]]:
    """For every kind of detector, the names of its losses and the norm of a gradient after its exchange."""
    differences = {kind: difference_to_one_process(rank, kind) for kind in [*SINGLE_SCALE, "detr"]}
    assert max(differences.values()) < 2e-6, differences
    detectors = {kind: single_scale_detector(kind) for kind in SINGLE_SCALE}
    for source in (DenoisingQueries, ContrastiveDenoisingQueries):
        detectors[source.__name__] = tiny_denoising_detr(source, align=True)
    found = {}
    for name, model in detectors.items():
        parallel = DistributedDataParallel(model.train())
        torch.manual_seed(rank)
        model.criterion.matcher.on_nonfinite = "skip"
        for counts in ((3, 0), (0, 0), (0, 20), (2, 3)):  # a parameter without a gradient stops the step after it
            model.zero_grad()
            batch = [image_input(96, 70, counts[rank]), image_input(64, 96, 0)]
            if counts == (2, 3) and rank == 1:  # starts its step again without this image, process 0 does not
                batch[0]["image"] = torch.full((3, 96, 70), float("nan"))
            losses = parallel(batch)
            sum(losses.values()).backward()
            assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters()), name
        found[name] = sorted(losses), format(float(model.head.class_embed.weight.grad.double().norm()), ".6e")
    return found


def test_a_process_without_objects(tmp_path: Path) -> None:
    """It has the gradient of the other, which is that of one process with all images."""
    first, second = in_two_processes(losses_and_gradients, tmp_path)
    assert first == second, "equal names of losses, equal gradients"
    assert len(first) == 7
