"""Reading of the shared numeric fixtures: found by pattern, every size taken from the file."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from align_detr.structures import Targets
from support.paths import GOLDEN


@dataclass
class Fixture:
    """One file: `meta`, and the arrays under `weights/`, `input/`, `output/`, `loss/`, `grad/` as tensors."""

    name: str
    meta: dict
    weights: dict[str, Tensor]
    input: dict[str, Tensor]
    output: dict[str, Tensor]
    loss: dict[str, Tensor]
    grad: dict[str, Tensor]

    def targets(self) -> Targets:
        """The concatenated targets, padded."""
        return pad_targets(self.input["tgt_labels"], self.input["tgt_boxes"], self.input["tgt_sizes"].tolist())

    def indices(self, prefix: str) -> list[list[tuple[int, int]]]:
        """Recorded matches of each image as (query, target) pairs."""
        pairs = list(
            zip(self.output[f"{prefix}src_idx"].tolist(), self.output[f"{prefix}tgt_idx"].tolist(), strict=True)
        )
        sizes, matches = self.output[f"{prefix}num_matched"].tolist(), []
        for n in sizes:
            matches.append(pairs[:n])
            pairs = pairs[n:]
        return matches


def pad_targets(labels: Tensor, boxes: Tensor, counts: list[int]) -> Targets:
    """Concatenated labels (N,) and boxes (N, 4) of images with `counts` objects -> Targets."""
    longest = max([1, *counts])
    padded_labels = torch.zeros(len(counts), longest, dtype=torch.int64)
    padded_boxes = torch.full((len(counts), longest, 4), 0.25)
    for b, (x, y) in enumerate(zip(labels.split(counts), boxes.split(counts), strict=True)):
        padded_labels[b, : len(x)], padded_boxes[b, : len(y)] = x, y
    return Targets(labels=padded_labels, boxes=padded_boxes, counts=counts)


def load(path: Path) -> Fixture:
    """Reads one fixture."""
    with np.load(path, allow_pickle=False) as arrays:
        groups = {group: {} for group in ("weights", "input", "output", "loss", "grad")}
        for key in arrays.files:
            if key != "meta":
                group, name = key.split("/", 1)
                groups[group][name] = torch.from_numpy(np.array(arrays[key]))
        return Fixture(name=path.stem, meta=json.loads(str(arrays["meta"])), **groups)


def fixtures(*patterns: str) -> pytest.MarkDecorator:
    """Parametrises a test over the fixture files that fit one of the patterns; the file's name is the test's id."""
    paths = sorted({p for pattern in patterns for p in GOLDEN.glob(f"{pattern}.npz")})
    if not paths:
        reason = f"no fixture {' or '.join(patterns)} in {GOLDEN} (set ALIGN_DETR_GOLDEN)"
        return pytest.mark.parametrize(
            "fixture", [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="-".join(patterns))]
        )
    return pytest.mark.parametrize("fixture", [pytest.param(p, id=p.name) for p in paths], indirect=True)
