"""Loading and saving of checkpoints."""

import os
from collections.abc import Sequence
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from align_detr.checkpoint.contents import AVERAGES_BESIDE, EVALUATED, Weights, read_weights, weights_in
from align_detr.checkpoint.loading import load_weights
from align_detr.checkpoint.packages import PackageFiles
from align_detr.checkpoint.report import LoadReport
from align_detr.checkpoint.restricted import read_checkpoint
from align_detr.errors import ConfigError, EnvironmentProblem
from align_detr.paths import SMALL_DATA_REMEDY, is_small_data

PathManager.register_handler(PackageFiles(), allow_override=True)


class Checkpointer(DetectionCheckpointer):
    """detectron2's checkpointer, which runs no code from files and says in one line what fitted the model.

    It reads `.pth`, `.pt` and `.ckpt` (tensors and plain values), `.npz` and `.pkl` (numpy arrays; detectron2's and
    Caffe2's model-zoo files, matched by name as detectron2 does). Published weights are converted. `report` is that of
    the file loaded last.
    """

    report: LoadReport | None = None

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Continue from a checkpoint: load its plain weights and `checkpointables` (None: all); return all else in it.

        An empty path loads nothing; `checkpointables=[]` starts from the weights alone, averaged if the file has such.
        Every process of a run must call this, and must see the file. Raise ConfigError for a file that is missing,
        unreadable or fits no key, and EnvironmentProblem for one that cannot be downloaded.
        """
        if checkpointables is not None and not checkpointables:
            if path:
                self.load_weights(self.read(path))
            return {}
        path = self.find(path)
        if not path:
            return {}
        self.logger.info("Reading the checkpoint %s.", path)
        content = read_checkpoint(path)
        self.report = load_weights(self.model, weights_in(content, path, averaged=False))
        for key in self.checkpointables if checkpointables is None else checkpointables:
            if key in content:
                self.checkpointables[key].load_state_dict(content.pop(key))
        return {key: value for key, value in content.items() if key != "model"}

    def read(self, path: str, *, averaged: bool = True) -> Weights:
        """Read the weights of a file or URL, as `read_weights` does; the errors are also those of `load`."""
        path = self.find(path)
        self.logger.info("Reading the weights of %s.", path)
        return read_weights(path, averaged=averaged)

    def load_weights(
        self, weights: Weights, *, class_names: Sequence[str] | None = None, strict: bool = False
    ) -> LoadReport:
        """Load weights that were read into the model, as `align_detr.checkpoint.loading.load_weights` does."""
        self.report = load_weights(self.model, weights, class_names=class_names, strict=strict)
        return self.report

    def require_complete(self) -> None:
        """Raise ConfigError if the file loaded last lacks tensors of the model or has them in other shapes."""
        if self.report is not None:
            self.report.require_complete()

    def find(self, path: str) -> str:
        """Return the local path of a checkpoint, downloaded if need be, after all processes have seen it."""
        path = os.fspath(path)
        if "://" in path:
            path = self._download(path)
        if path:
            missing = [rank for rank, found in enumerate(comm.all_gather(os.path.isfile(path))) if not found]
            if missing:
                where = f" for process {missing[0]}" if comm.get_world_size() > 1 else ""
                raise ConfigError(f"The checkpoint {path} does not exist{where}: {self._remedy(path)}.")
        return path

    def save(self, name: str, **kwargs: Any) -> None:
        """Save a checkpoint `name`.pth as detectron2 does; its plain weights say if there are averaged ones."""
        state = self.model.state_dict()
        if "ema" in self.checkpointables and hasattr(state, "_metadata"):
            state._metadata.setdefault("", {})[AVERAGES_BESIDE] = EVALUATED.get(name, True)
        super().save(name, model=state, **kwargs)

    def last_checkpoint(self) -> str:
        """Return the newest checkpoint of the output folder, or "" if there is none."""
        return self.get_checkpoint_file() if self.save_dir and self.has_checkpoint() else ""

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
