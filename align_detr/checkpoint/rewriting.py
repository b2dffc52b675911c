"""Files of weights under this library's names, and a description of what a file holds."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from align_detr.checkpoint.class_rows import coco_names
from align_detr.checkpoint.contents import Weights
from align_detr.checkpoint.conversion import find_release
from align_detr.checkpoint.releases import releases
from align_detr.errors import ConfigError

FORMATS = (".pth", ".npz")
CLASSIFIER = "class_embed"
_NUMPY_FLOATS = (torch.float16, torch.float32, torch.float64)


def renamed(weights: Weights) -> Weights:
    """Return the weights under this library's names, and with COCO's class names if they are a published detector.

    Official files of one row per COCO id (91) get the rows of the 80 classes. Raise ConfigError for files whose names
    detectron2 matches by similarity, which need a model.
    """
    require_names(weights)
    release = find_release(weights.state)
    if release is None:
        return weights
    state = release.convert(weights.state, 80)
    names = coco_names(80) if release.config is not None and weights.class_names is None else weights.class_names
    return replace(weights, state=state, class_names=None if names is None else [str(name) for name in names])


def require_names(weights: Weights) -> None:
    """Raise ConfigError for a file whose names detectron2 matches with a model's by similarity."""
    if weights.by_similarity:
        raise ConfigError(
            f"{weights.path} has names that are matched with a model's by similarity: load it into a model, with "
            "train.init_checkpoint, and take the weights that the training writes."
        )


def require_new_file(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file that can be written; raise ConfigError for one that exists and for another ending."""
    target = Path(path)
    if target.suffix.lower() not in FORMATS:
        raise ConfigError(f"{target} ends in neither {' nor '.join(FORMATS)}: choose one, the format follows from it.")
    if target.exists():
        raise ConfigError(f"{target} exists already: choose another name, or remove it.")
    if not target.parent.is_dir():
        raise ConfigError(f"The folder {target.parent} does not exist: create it first.")
    return target


def write_renamed(weights: Weights, path: str | os.PathLike[str], config: str | None = None) -> None:
    """Write weights as a new file: .pth with class names, iteration and the YAML text `config`, or .npz, of arrays.

    numpy has neither bfloat16 nor floats of 8 bits: .npz has float32 instead. Raise as `require_new_file` does.
    """
    target = require_new_file(path)
    unfinished = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        if target.suffix.lower() == ".npz":
            arrays: dict[str, Any] = {key: _array(value) for key, value in weights.state.items()}
            np.savez(unfinished, **arrays)
        else:
            torch.save(_content(weights, config), unfinished)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def describe(weights: Weights) -> Iterator[str]:
    """Yield lines that say what a file holds: its origin, numbers, classes, training and config."""
    size = Path(weights.path).stat().st_size / 1e6
    yield f"{weights.path}: {size:.1f} MB"
    yield f"origin: {_origin(weights)}"
    types = Counter(str(value.dtype).removeprefix("torch.") for value in weights.state.values())
    numbers = sum(value.numel() for value in weights.state.values())
    yield f"tensors: {len(weights.state)} ({', '.join(sorted(types))}), {numbers:,} numbers"
    if weights.class_names is not None:
        yield f"classes: {len(weights.class_names)} ({', '.join(weights.class_names)})"
    else:
        rows = {value.shape[0] for key, value in weights.state.items() if CLASSIFIER in key and value.dim() == 1}
        yield f"classes: not named{f', {max(rows)} rows in the classifier' if rows else ''}"
    yield f"weights: {'moving averages' if weights.averaged else 'not averaged'}"
    yield f"iterations: {'not stated' if weights.iteration is None else f'{weights.iteration:,}'}"
    yield f"config: {'in the file' if weights.config is not None else 'none in the file'}"


def _origin(weights: Weights) -> str:
    """Return who the weights are of, by their keys, and the file of the table by name or hash."""
    release = find_release(weights.state)
    if release is None:
        if weights.config is None:
            return "names of this library or of an unknown model"
        return "names of this library" if weights.iteration is None else "a training of this library"
    text = release.name
    config = None if release.config is None else release.config(weights.state)
    if config is not None:
        text += f", for {config} or a config made from it"
    named = next((entry for entry in releases() if _is_file_of(weights.path, entry.file, entry.sha256)), None)
    return text if named is None else f"{text}; in the table: {named.name}"


def _is_file_of(path: str, file: str, sha256: str | None) -> bool:
    """Return whether the file is one of the table: of its name and, where a hash is published, with that hash."""
    if not file or Path(path).name != file:
        return False
    return sha256 is None or _sha256(path).startswith(sha256)


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _content(weights: Weights, config: str | None) -> dict[str, Any]:
    """Return what a .pth file of ours holds."""
    content: dict[str, Any] = {
        "model": _contiguous(weights.state),
        "averaged": weights.averaged,
        "classes": {"names": weights.class_names},
        "config": {"yaml": config if config is not None else weights.config},
    }
    return content if weights.iteration is None else {**content, "iteration": weights.iteration - 1}


def _contiguous(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors that share no memory with larger ones: torch.save would write those."""
    return {key: value.detach().cpu().clone().contiguous() for key, value in state.items()}


def _array(value: Tensor) -> np.ndarray:
    value = value.detach().cpu()
    return (value.float() if value.is_floating_point() and value.dtype not in _NUMPY_FLOATS else value).numpy()
