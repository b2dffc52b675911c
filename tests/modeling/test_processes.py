"""Detectors in two processes, of which one has no object: what DistributedDataParallel needs of every parameter."""

from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

from align_detr.modeling.queries import ContrastiveDenoisingQueries, DenoisingQueries
from support.detectors import SINGLE_SCALE, single_scale_detector, tiny_denoising_detr
from support.inputs import image_input
from support.processes import in_two_processes


def losses_and_gradients(rank: int) -> dict[str, tuple[list[str], str]]:
    """For every kind of detector, the names of its losses and the norm of a gradient after its exchange."""
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
    first, second = in_two_processes(losses_and_gradients, tmp_path)
    assert first == second, "equal names of losses, equal gradients"
    assert len(first) == 7
