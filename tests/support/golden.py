"""Reading of the shared numeric fixtures: found by pattern, every size taken from the file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from align_detr.structures import Memory, Targets
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

    def tokens(self, neck: nn.Module, features: Mapping[str, Tensor] | None = None) -> Memory:
        """Return what `neck` makes of the recorded maps, or of `features`; check its mask of padding."""
        if features is None:
            features = {name.removeprefix("feat_"): x for name, x in self.input.items() if name.startswith("feat_")}
        sizes = [tuple(size) for size in self.input["image_sizes_hw"].tolist()]
        memory = neck(features, sizes, tuple(self.input["padded_size_hw"].tolist()))
        masks = [self.input[f"mask_lvl{i}"].flatten(1) for i in range(len(memory.shapes))]
        assert torch.equal(memory.padding, torch.cat(masks, dim=1))
        return memory

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
    """Return the targets of images with `counts` objects from concatenated labels (N,) and boxes (N, 4)."""
    longest = max([1, *counts])
    padded_labels = torch.zeros(len(counts), longest, dtype=torch.int64)
    padded_boxes = torch.full((len(counts), longest, 4), 0.25)
    for b, (x, y) in enumerate(zip(labels.split(counts), boxes.split(counts), strict=True)):
        padded_labels[b, : len(x)], padded_boxes[b, : len(y)] = x, y
    return Targets(labels=padded_labels, boxes=padded_boxes, counts=counts)


def load(path: Path) -> Fixture:
    """Read one fixture."""
    with np.load(path, allow_pickle=False) as arrays:
        groups = {group: {} for group in ("weights", "input", "output", "loss", "grad")}
        for key in arrays.files:
            if key != "meta":
                group, name = key.split("/", 1)
                groups[group][name] = torch.from_numpy(np.array(arrays[key]))
        return Fixture(name=path.stem, meta=json.loads(str(arrays["meta"])), **groups)


def fixtures(*patterns: str, having: Sequence[str] = (), lacking: Sequence[str] = ()) -> pytest.MarkDecorator:
    """Parametrise a test over the fixture files that fit one of the patterns; the file's name is the test's id.

    `having` and `lacking` begin the names of arrays that a file must have, or must not: only files of networks have
    "weights/", and only some of those "grad/".
    """
    paths = matching(GOLDEN, *patterns, having=having, lacking=lacking)
    if not paths:
        reason = f"no fixture {' or '.join(patterns)} in {GOLDEN} (set ALIGN_DETR_GOLDEN)"
        return pytest.mark.parametrize(
            "fixture", [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="-".join(patterns))]
        )
    return pytest.mark.parametrize("fixture", [pytest.param(p, id=p.name) for p in paths], indirect=True)


def matching(folder: Path, *patterns: str, having: Sequence[str] = (), lacking: Sequence[str] = ()) -> list[Path]:
    """Return the files of `folder` that `fixtures` would find there."""
    found = sorted({path for pattern in patterns for path in folder.glob(f"{pattern}.npz")})
    return [
        path
        for path in found
        if all(_has(path, start) for start in having) and not any(_has(path, start) for start in lacking)
    ]


@cache
def _has(path: Path, start: str) -> bool:
    """Return whether the name of one of a fixture's arrays begins so; no array is read."""
    with np.load(path, allow_pickle=False) as arrays:
        return any(name.startswith(start) for name in arrays.files)


@dataclass(frozen=True)
class Manifest:
    """A state dict's names and shapes, and the counts of parameters that go with it."""

    name: str
    shapes: dict[str, list[int]]
    total: int
    trainable: int
    repeated: int  # names beyond the first of each tensor

    @property
    def state(self) -> dict[str, Tensor]:
        """The state dict without its numbers."""
        return {key: torch.empty(shape, device="meta") for key, shape in self.shapes.items()}


def load_manifest(path: Path) -> Manifest:
    """Read one manifest, of either way to write them."""
    given = json.loads(path.read_text())
    return Manifest(
        name=path.stem,
        shapes=given["state_dict"] if "state_dict" in given else given["shapes"],
        total=given["params_total"] if "params_total" in given else given["parameters_total"],
        trainable=given["params_trainable"] if "params_trainable" in given else given["parameters_trainable"],
        repeated=sum(len(names) - 1 for names in given.get("shared_keys", [])),
    )
