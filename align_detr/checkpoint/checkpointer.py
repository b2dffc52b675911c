"""Loading and saving of checkpoints."""

import os
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils import comm

from align_detr.checkpoint.conversion import convert
from align_detr.checkpoint.restricted import read_checkpoint
from align_detr.errors import ConfigError, EnvironmentProblem
from align_detr.paths import SMALL_DATA_REMEDY, is_small_data

_PIXEL_STATISTICS = {"pixel_mean", "pixel_std"}


class Checkpointer(DetectionCheckpointer):
    """detectron2's checkpointer, which runs no code from files and refuses a file of which nothing fits the model.

    It reads `.pth` and `.pt` (tensors and plain values), `.npz` and `.pkl` (numpy arrays; detectron2's and Caffe2's
    model-zoo files, matched by name as detectron2 does), and logs missing, unexpected and differently shaped keys.
    After loading, `missing_parameters` names the model's parameters that the file lacks or has in another shape;
    `wrong_shapes` gives the shapes of the latter, {name: (the file's, the model's)}.
    """

    missing_parameters: tuple[str, ...] | list[str] = ()
    wrong_shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = MappingProxyType({})

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load weights and `checkpointables` (None: all); return what else the file holds.

        An empty path loads nothing. Every process of a run must call this, and must see the file. Raise ConfigError for
        a file that is missing, unreadable or fits no key, and EnvironmentProblem for one that cannot be downloaded.
        """
        path = os.fspath(path)
        if "://" in path:
            path = self._download(path)
        if path:
            missing = [rank for rank, found in enumerate(comm.all_gather(os.path.isfile(path))) if not found]
            if missing:
                where = f" for process {missing[0]}" if comm.get_world_size() > 1 else ""
                raise ConfigError(f"The checkpoint {path} does not exist{where}: {self._remedy(path)}.")
        # newer detectron2 leaves this set after a failed load, and then refuses the next one
        self._parsed_url_during_load = None
        return super().load(path, checkpointables=checkpointables)

    def _remedy(self, path: str) -> str:
        """Return the remedy for a missing checkpoint, by the origin of its path."""
        if path == self.last_checkpoint():
            return f"put it back, or remove the file last_checkpoint of {self.save_dir}"
        if is_small_data(path):
            return f"{SMALL_DATA_REMEDY}, or correct train.init_checkpoint"
        return "correct train.init_checkpoint"

    def _download(self, url: str) -> str:
        """Return the local copy of a URL; raise EnvironmentProblem if it cannot be downloaded."""
        try:
            return self.path_manager.get_local_path(url)
        except OSError as error:
            raise EnvironmentProblem(
                f"The checkpoint {url} cannot be downloaded ({error}): get the file elsewhere and set "
                "train.init_checkpoint to its path, or to '' for random weights."
            ) from error

    def last_checkpoint(self) -> str:
        """Return the newest checkpoint of the output folder, or "" if there is none."""
        return self.get_checkpoint_file() if self.save_dir and self.has_checkpoint() else ""

    def _load_file(self, filename: str) -> dict[str, Any]:
        """Return {"model": state dict, ...}, with "matching_heuristics" if names are to be matched by similarity."""
        loaded = read_checkpoint(filename)
        _check_names(loaded, filename)
        if filename.lower().endswith(".pkl") and not ("model" in loaded and "__author__" in loaded):
            # Caffe2 and Detectron: bare blobs, in a further dictionary for detection models
            blobs = loaded.get("blobs", loaded)
            _check_names(blobs, filename)
            weights = {key: value for key, value in blobs.items() if not key.endswith("_momentum")}
            return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}
        if not isinstance(loaded.get("model"), dict):
            loaded = {"model": loaded}
        _check_names(loaded["model"], filename)
        try:
            self._convert_ndarray_to_tensor(loaded["model"])
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"{filename} is not a dictionary of weights ({error}): save a model's state_dict()."
            ) from error
        loaded["model"] = self._convert(loaded["model"])
        return loaded

    def _convert(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """Return `state_dict` under this library's names if it is a known release, else unchanged."""
        converted = convert(state_dict, num_classes=getattr(self.model, "num_classes", None))
        return _into_pyramid(converted, self.model.state_dict().keys())

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        """Load the weights; raise ConfigError if no key of the file is the model's, in the same shape."""
        keys = list(checkpoint["model"])
        incompatible = super()._load_model(checkpoint)
        self.wrong_shapes = {name: (tuple(theirs), tuple(ours)) for name, theirs, ours in incompatible.incorrect_shapes}
        not_loaded = set(incompatible.missing_keys) | self.wrong_shapes.keys()
        model_keys = self.model.state_dict().keys()
        loaded = model_keys - not_loaded
        # a shared parameter is loaded if any of its names is
        loaded_ids = {id(p) for name, p in self.model.named_parameters(remove_duplicate=False) if name in loaded}
        self.missing_parameters = [name for name, p in self.model.named_parameters() if id(p) not in loaded_ids]
        # counted in the file's keys: frozen batch norms fill in missing statistics, which does not count as a fit
        fits = len(keys) - len(incompatible.unexpected_keys) - len(incompatible.incorrect_shapes)
        if model_keys and fits - len(_PIXEL_STATISTICS & model_keys & set(keys)) <= 0:
            raise ConfigError(
                f"Nothing of the checkpoint fits the model (it has keys such as {_examples(keys)}, the model such as "
                f"{_examples(list(model_keys))}): correct train.init_checkpoint or the config."
            )
        return incompatible


def _check_names(loaded: Any, filename: str) -> None:
    """Raise ConfigError unless `loaded` is a dictionary whose keys are names."""
    if not isinstance(loaded, dict):
        raise ConfigError(
            f"{filename} holds a {type(loaded).__name__}, not a dictionary of weights: save a model's state_dict()."
        )
    for key in loaded:
        if not isinstance(key, str):
            raise ConfigError(
                f"{filename} has the key {key!r}, which is not a parameter's name: save a model's state_dict()."
            )


def _into_pyramid(state_dict: Mapping[str, Any], model_keys: Collection[str]) -> dict[str, Any]:
    """Rename the entries of a backbone to those of the same backbone in a feature pyramid, if the model has one."""
    moved = {key: key.replace("backbone.", "backbone.bottom_up.", 1) for key in state_dict}
    return {
        moved[key] if key.startswith("backbone.") and key not in model_keys and moved[key] in model_keys else key: value
        for key, value in state_dict.items()
    }


def _examples(keys: list[str]) -> str:
    return ", ".join(f"'{key}'" for key in sorted(keys)[:2]) if keys else "none"
