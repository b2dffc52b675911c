"""Loading and saving of checkpoints."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils import comm

from align_detr.checkpoint.conversion import convert
from align_detr.checkpoint.restricted import read_checkpoint
from align_detr.errors import ConfigError, EnvironmentProblem
from align_detr.paths import data_folder

_PIXEL_STATISTICS = {"pixel_mean", "pixel_std"}


class Checkpointer(DetectionCheckpointer):
    """detectron2's checkpointer that runs no code from files and refuses a file of which nothing fits the model.

    Reads `.pth`, `.pt` (tensors and plain values), `.npz` and `.pkl` (numpy arrays; detectron2's and Caffe2's model-zoo
    files, matched by name as detectron2 does). Missing, unexpected and differently shaped keys are logged. A file that
    is missing, unreadable or matches no key raises ConfigError; one that cannot be downloaded EnvironmentProblem.
    `missing_parameters` names the model's parameters that the file loaded last did not have, or
    had in another shape; `wrong_shapes` gives the latter's shapes, {name: (the file's, the model's)}.
    """

    missing_parameters: tuple[str, ...] | list[str] = ()
    wrong_shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = MappingProxyType({})

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load weights and `checkpointables` (None: all); return what else the file holds.

        An empty path loads nothing. Where several processes run, all call this, and all must see the file.
        """
        path = os.fspath(path)
        if "://" in path:
            path = self._download(path)
        if path:
            missing = [rank for rank, found in enumerate(comm.all_gather(os.path.isfile(path))) if not found]
            if missing:
                where = f" for process {missing[0]}" if comm.get_world_size() > 1 else ""
                raise ConfigError(f"The checkpoint {path} does not exist{where}: {self._remedy(path)}.")
        # newer detectron2 leaves this set after a failed load, and then refuses the next
        self._parsed_url_during_load = None
        return super().load(path, checkpointables=checkpointables)

    def _remedy(self, path: str) -> str:
        """Return what mends a missing checkpoint, by where its path came from."""
        if path == self.last_checkpoint():
            return f"put it back, or remove the file last_checkpoint of {self.save_dir}"
        if Path(path).resolve().is_relative_to(data_folder()):
            return "set ALIGN_DETR_DATA to the folder of the small data sets, or correct train.init_checkpoint"
        return "correct train.init_checkpoint"

    def _download(self, url: str) -> str:
        """Return the local copy of a URL; raises EnvironmentProblem if it cannot be had."""
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
        """Return {"model": state dict, ...}, with "matching_heuristics" where names are to be matched by similarity."""
        loaded = read_checkpoint(filename)
        if not isinstance(loaded, dict):
            raise ConfigError(f"{filename} holds a {type(loaded).__name__}, not a dictionary of weights.")
        if filename.lower().endswith(".pkl") and not ("model" in loaded and "__author__" in loaded):
            # Caffe2 and Detectron: bare blobs, in a further dictionary for detection models
            blobs = loaded.get("blobs", loaded)
            weights = {key: value for key, value in blobs.items() if not key.endswith("_momentum")}
            return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}
        if not isinstance(loaded.get("model"), dict):
            loaded = {"model": loaded}
        try:
            self._convert_ndarray_to_tensor(loaded["model"])
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{filename} is not a dictionary of weights: {error}") from error
        loaded["model"] = self._convert(loaded["model"])
        return loaded

    def _convert(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """Return `state_dict` under this library's names if it is a known release, else unchanged."""
        converted = convert(state_dict, num_classes=getattr(self.model, "num_classes", None))
        return _into_pyramid(converted, self.model.state_dict().keys())

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        """Load the weights; raises ConfigError if not one of the file's keys, with its shape, is the model's."""
        given = list(checkpoint["model"])
        incompatible = super()._load_model(checkpoint)
        self.wrong_shapes = {name: (tuple(theirs), tuple(ours)) for name, theirs, ours in incompatible.incorrect_shapes}
        not_loaded = set(incompatible.missing_keys) | self.wrong_shapes.keys()
        wanted = self.model.state_dict().keys()
        loaded = wanted - not_loaded
        # a shared parameter has been loaded if any of its names has
        found = {id(p) for name, p in self.model.named_parameters(remove_duplicate=False) if name in loaded}
        self.missing_parameters = [name for name, p in self.model.named_parameters() if id(p) not in found]
        # Counted from the file's side: frozen batch norms fill in statistics they miss, which is no fit.
        fits = len(given) - len(incompatible.unexpected_keys) - len(incompatible.incorrect_shapes)
        if wanted and fits - len(_PIXEL_STATISTICS & wanted & set(given)) <= 0:
            raise ConfigError(
                f"Nothing of the checkpoint fits the model: it has keys such as {_examples(given)}, "
                f"the model such as {_examples(list(wanted))}; check train.init_checkpoint and the config."
            )
        return incompatible


def _into_pyramid(state_dict: Mapping[str, Any], wanted: Collection[str]) -> dict[str, Any]:
    """The entries of a backbone under the names they have where a feature pyramid is built on it."""
    moved = {key: key.replace("backbone.", "backbone.bottom_up.", 1) for key in state_dict}
    return {
        moved[key] if key not in wanted and key.startswith("backbone.") and moved[key] in wanted else key: value
        for key, value in state_dict.items()
    }


def _examples(keys: list[str]) -> str:
    return ", ".join(f"'{key}'" for key in sorted(keys)[:2]) if keys else "none"
