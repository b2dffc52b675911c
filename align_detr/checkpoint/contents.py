"""What a file of weights holds: a state dict, and what its training wrote beside it."""

import os
import unicodedata
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from align_detr.checkpoint.files import write_file
from align_detr.checkpoint.restricted import read_checkpoint
from align_detr.errors import ConfigError

WEIGHTS_FILE = "weights.pth"  # the evaluated weights alone, which training leaves in its folder
BEST_WEIGHTS_FILE = "weights_best.pth"  # those of the best evaluation, if `train.best` is set
EVALUATED = {"model_final": WEIGHTS_FILE, "model_best": BEST_WEIGHTS_FILE}  # of a checkpoint, the averages alone
NO_CLASS_NAME = "which a config reads as the value of a key or which is more than a line of text"
_CONTROL = {"Cc", "Zl", "Zp"}  # Unicode's control characters and separators of lines
# in a state dict's metadata: the file has averaged weights as well; their own file of EVALUATED, or True
AVERAGES_BESIDE = "averages_beside"


@dataclass(frozen=True)
class Weights:
    """Weights under the names of their file, and what the file says about them.

    averaged: these are moving averages. class_names: in the order of the logits. config: YAML of the training's config.
    iteration: number of iterations trained. by_similarity: the names have to be matched as detectron2 matches those of
    its model zoo; author: who wrote such a file.
    """

    state: Mapping[str, Tensor]
    averaged: bool
    class_names: list[str] | None
    config: str | None
    iteration: int | None
    path: str
    by_similarity: bool = False
    author: str | None = None


def read_weights(path: str | os.PathLike[str], *, averaged: bool = True) -> Weights:
    """Read a local file of weights without running code from it; take the averaged weights if it has any.

    With `averaged=False` take the plain ones; a file that holds nothing but averages gives those all the same. Raise
    ConfigError for a file that is missing, damaged, holds another class or is no dictionary of weights.
    """
    path = os.fspath(path)
    if not Path(path).is_file():
        raise ConfigError(f"There is no checkpoint {path}: pass the path of a local file of weights.")
    if path.lower().endswith(".onnx"):
        raise ConfigError(
            f"{path} is an exported file, which predicts alone: use align_detr.OnnxDetector or align-detr predict, or "
            "pass the weights that it was exported from."
        )
    if path.lower().endswith(".pt2"):
        raise ConfigError(
            f"{path} is an exported program, which PyTorch runs (docs/export.md): name the weights that it came from."
        )
    return weights_in(read_checkpoint(path), path, averaged=averaged)


def weights_in(content: Any, path: str, *, averaged: bool) -> Weights:
    """Return the weights in the content of the file `path`, as `read_weights` does."""
    _check_names(content, path)
    if path.lower().endswith(".pkl") and not ("model" in content and "__author__" in content):
        # Caffe2 and Detectron: bare blobs, in a further dictionary for detection models
        blobs = content.get("blobs", content)
        _check_names(blobs, path)
        weights = {key: value for key, value in blobs.items() if not key.endswith("_momentum")}
        return Weights(_tensors(weights, path), False, None, None, None, path, by_similarity=True, author="Caffe2")
    state, is_average = _state_in(content, path, averaged)
    _check_names(state, path)
    _refuse_mmdetection(state, path)
    return Weights(
        state=without_prefix(_tensors(state, path), "module."),
        averaged=is_average,
        class_names=_class_names(content, path),
        config=_config(content, path),
        iteration=_iteration(content),
        path=path,
        by_similarity=content.get("matching_heuristics") is True,
        author=content["__author__"] if isinstance(content.get("__author__"), str) else None,
    )


def is_class_name(name: str) -> bool:
    """Return whether a config and a line of text can hold the name of a class as it is."""
    return "${" not in name and name != "???" and not any(unicodedata.category(c) in _CONTROL for c in name)


def write_weights(
    path: str | os.PathLike[str],
    model: nn.Module,
    *,
    class_names: Sequence[str] | None,
    config: str | None,
    averaged: bool,
    iteration: int | None = None,
) -> None:
    """Write the weights of `model` alone, with class names and config: a file to share, and to detect objects with.

    `averaged` says whether they are moving averages, `iteration` for how many iterations they were trained.
    """
    content = {
        "model": model.state_dict(),
        "averaged": averaged,
        "classes": {"names": None if class_names is None else list(class_names)},
        "config": {"yaml": config},
        **({} if iteration is None else {"iteration": iteration - 1}),
    }
    write_file(path, lambda file: torch.save(content, file))


def _state_in(content: Mapping[str, Any], path: str, averaged: bool) -> tuple[Any, bool]:
    """Return the state dict in a file's content, and whether it is an average."""
    if averaged:
        ours = content.get("ema")
        if isinstance(ours, dict) and isinstance(ours.get("model"), dict):
            updates = ours.get("num_updates", 1)
            if not isinstance(updates, int):
                raise ConfigError(
                    f"{path} has ema.num_updates of the type {type(updates).__name__}, not a whole number: get the "
                    "file again."
                )
            if updates:
                return ours["model"], True
        if isinstance(content.get("ema_model"), dict):  # the original DINO
            return content["ema_model"], True
    if isinstance(content.get("model"), dict):
        return content["model"], content.get("averaged") is True
    if isinstance(content.get("state_dict"), dict):  # Lightning, which wraps the model in a module, and mmdetection
        inner = content["state_dict"]
        if all(isinstance(key, str) and key.startswith("model.") for key in inner):
            return {key.removeprefix("model."): value for key, value in inner.items()}, False
        return inner, False
    return content, False


def without_prefix(state: Mapping[str, Tensor], prefix: str) -> Mapping[str, Tensor]:
    """Return the state dict without a wrapper's prefix if every name has it, else the same mapping."""
    if not state or not all(key.startswith(prefix) for key in state):
        return state
    return {key.removeprefix(prefix): value for key, value in state.items()}


def _check_names(loaded: Any, path: str) -> None:
    """Raise ConfigError unless `loaded` is a dictionary whose keys are names."""
    if not isinstance(loaded, dict):
        raise ConfigError(
            f"{path} holds a {type(loaded).__name__}, not a dictionary of weights: save a model's state_dict()."
        )
    for key in loaded:
        if not isinstance(key, str):
            raise ConfigError(
                f"{path} has the key {key!r}, which is not a parameter's name: save a model's state_dict()."
            )


def _tensors(state: Mapping[str, Any], path: str) -> dict[str, Tensor]:
    """Return the state dict with arrays as tensors, and with torch's metadata; raise ConfigError for other values."""
    tensors: OrderedDict[str, Tensor] = OrderedDict()
    for key, value in state.items():
        if isinstance(value, np.ndarray) and not value.dtype.isnative:
            value = value.astype(value.dtype.newbyteorder("="))
        try:
            tensors[key] = value if isinstance(value, Tensor) else torch.from_numpy(value)
        except (TypeError, ValueError) as error:  # no array, or one of texts or objects
            raise ConfigError(
                f"{path} is not a dictionary of weights ('{key}' is a {type(value).__name__}): "
                "save a model's state_dict()."
            ) from error
        _refuse_odd(key, tensors[key], path)
    if hasattr(state, "_metadata"):
        metadata = state._metadata
        if not isinstance(metadata, dict) or not all(isinstance(each, dict) for each in metadata.values()):
            raise ConfigError(f"{path} has metadata that are no dictionaries: save the weights again.")
        tensors._metadata = state._metadata  # type: ignore[attr-defined]  # versions of modules, as torch keeps them
    return tensors


def _refuse_odd(key: str, tensor: Tensor, path: str) -> None:
    """Raise ConfigError for a tensor that is no array of real numbers."""
    kinds = {
        "sparse": tensor.layout != torch.strided,
        "without numbers (meta)": tensor.is_meta,
        "quantized": tensor.is_quantized,
        "nested": tensor.is_nested,
        "complex": tensor.is_complex(),
    }
    for kind, found in kinds.items():
        if found:
            raise ConfigError(f"{path} has the tensor '{key}', which is {kind}: save plain weights.")


def _refuse_mmdetection(state: Mapping[str, Any], path: str) -> None:
    """Raise ConfigError for a detector of mmdetection, a few of whose names are ours by accident."""
    foreign = next((key for key in state if key.startswith("bbox_head.")), None)
    if foreign is not None:
        raise ConfigError(
            f"{path} holds a detector of mmdetection, whose names, such as '{foreign}', are not read: take the weights "
            "of the model's authors or of detrex, or rename the entries to those of the config's model."
        )


def _class_names(content: Mapping[str, Any], path: str) -> list[str] | None:
    """Return the names of the classes that a file of ours holds."""
    classes = content.get("classes")
    names = classes.get("names") if isinstance(classes, dict) else None
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ConfigError(f"{path} has class names that are no list of texts: save the names with the weights again.")
    for name in names or ():
        if not is_class_name(name):
            raise ConfigError(f"{path} has the class {name!r}, {NO_CLASS_NAME}: save the weights with another name.")
    return names


def _config(content: Mapping[str, Any], path: str) -> str | None:
    """Return the text of the config that a file of ours holds."""
    config = content.get("config")
    text = config.get("yaml") if isinstance(config, dict) else None
    if text is not None and not isinstance(text, str):
        raise ConfigError(f"{path} has a config that is no text: name the config yourself.")
    return text


def _iteration(content: Mapping[str, Any]) -> int | None:
    """Return the number of iterations that the weights were trained for."""
    trainer = content.get("trainer")
    last = trainer.get("iteration") if isinstance(trainer, dict) else None
    last = content.get("iteration") if last is None else last
    return last + 1 if isinstance(last, int) else None
