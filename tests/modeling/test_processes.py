"""Detectors in two processes, of which one has no object: what DistributedDataParallel needs of every parameter."""

import os
import subprocess
import sys
from pathlib import Path

from paths import PROJECT

# Each prints, for every kind of detector, the names of its losses and a gradient after its exchange.
SCRIPT = """
import sys
import torch
from parts import image_input
from test_denoising import ContrastiveDenoisingQueries, DenoisingQueries, tiny_denoising_detr
from test_single_scale import KINDS, detector

rank, store = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2)
detectors = {kind: detector(kind) for kind in KINDS}
for source in (DenoisingQueries, ContrastiveDenoisingQueries):
    detectors[source.__name__] = tiny_denoising_detr(source, align=True)
for name, model in detectors.items():
    parallel = torch.nn.parallel.DistributedDataParallel(model.train())
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
    print(name, sorted(losses), format(float(model.head.class_embed.weight.grad.double().norm()), ".6e"))
torch.distributed.barrier()  # neither leaves while the other still listens
torch.distributed.destroy_process_group()
"""


def test_a_process_without_objects(tmp_path: Path) -> None:
    folders = [str(PROJECT / "tests" / "modeling"), str(PROJECT / "tests"), str(PROJECT)]
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(rank), str(tmp_path / "store")],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    results = [run.communicate(timeout=180) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], results
    assert results[0][0] == results[1][0], "equal names of losses, equal gradients"
    assert len(results[0][0].splitlines()) == 7
