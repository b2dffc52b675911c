"""Loading and saving of checkpoints."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from align_detr.checkpoint.contents import AVERAGES_BESIDE, EVALUATED, Weights, read_weights, weights_in
from align_detr.checkpoint.files import find_damage, write_file
from align_detr.checkpoint.loading import load_weights
from align_detr.checkpoint.packages import PackageFiles
from align_detr.checkpoint.report import LoadReport
from align_detr.checkpoint.restricted import read_checkpoint
from align_detr.errors import ConfigError, EnvironmentProblem
from align_detr.paths import SMALL_DATA_REMEDY, WITHOUT_CHECKOUT, is_small_data

PathManager.register_handler(PackageFiles(), allow_override=True)

_NUMBERED = re.compile(r"model_(\d{7,})\.pth")


class Checkpointer(DetectionCheckpointer):
    """detectron2's checkpointer, which runs no code from files and says in one line what fitted the model.

    It reads `.pth`, `.pt` and `.ckpt` (tensors and plain values), `.npz` and `.pkl` (numpy arrays; detectron2's and
    Caffe2's model-zoo files, matched by name as detectron2 does). Published weights are converted. `report` is that of
    the file loaded last. A file that it saves is whole or not there, and so is last_checkpoint.
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

    def save(self, name: str, *, newest: bool = True, **kwargs: Any) -> None:
        """Save a checkpoint `name`.pth as detectron2 does; its plain weights say if there are averaged ones.

        `newest`: it becomes the one to resume from. Raise EnvironmentProblem if the disk is full or cannot be written.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        state = self.model.state_dict()
        if "ema" in self.checkpointables and hasattr(state, "_metadata"):
            state._metadata.setdefault("", {})[AVERAGES_BESIDE] = EVALUATED.get(name, True)
        parts = {key: part.state_dict() for key, part in self.checkpointables.items()}
        path = Path(self.save_dir) / f"{name}.pth"
        self.logger.info("Saving checkpoint to %s", path)
        write_file(path, lambda file: torch.save({"model": state, **parts, **kwargs}, file))
        if newest:
            self.tag_last_checkpoint(path.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Write the name of the checkpoint to resume from into last_checkpoint."""
        write_file(Path(self.save_dir) / "last_checkpoint", lambda file: file.write(last_filename_basename.encode()))

    def last_checkpoint(self) -> str:
        """Return the newest checkpoint of the output folder, or "" if there is none."""
        if not (self.save_dir and self.has_checkpoint()):
            return ""
        try:
            return self.get_checkpoint_file()
        except UnicodeDecodeError as error:
            damage = f"{self.save_dir}/last_checkpoint is damaged ({error})"
            raise ConfigError(f"{damage}: write the name of the checkpoint into it, or remove it.") from error

    def numbered(self) -> list[Path]:
        """Return the files of the output folder that are named after an iteration, oldest first."""
        found = {path: _NUMBERED.fullmatch(path.name) for path in Path(self.save_dir).glob("model_*.pth")}
        return sorted((path for path, match in found.items() if match), key=lambda path: int(path.stem[6:]))

    def newest_sound(self) -> str:
        """Return the newest checkpoint of the output folder whose checksums hold, or "" if there is none at all.

        For each file that is damaged or missing, log a line and take the one before. All processes get the choice of
        the main process. Raise ConfigError if files are there and none can be used.
        """
        choice = self._choose() if comm.is_main_process() else ("", "")
        path, problem = comm.all_gather(choice)[0]
        if problem:
            raise ConfigError(problem)
        return path

    def _choose(self) -> tuple[str, str]:
        """Return the checkpoint to resume from, or the sentence on why there is none."""
        candidates = self._newest_first()
        problems = []
        for number, path in enumerate(candidates):
            if not path.is_file() and len(candidates) == 1:
                return str(path), ""  # `find` names the remedy
            damage = find_damage(path, require_zip=True) if path.is_file() else "it does not exist"
            if damage is None:
                return str(path), ""
            problems.append(f"{path.name}: {damage}")
            if number + 1 < len(candidates):
                before = candidates[number + 1].name
                self.logger.warning("%s cannot be used (%s): taking %s, the one before.", path, damage, before)
        if not problems:
            return "", ""
        return "", (
            f"No checkpoint of {self.save_dir} can be used ({'; '.join(problems)}): put a copy back, or start anew "
            "with --overwrite."
        )

    def _newest_first(self) -> list[Path]:
        """Return the tagged checkpoint and the numbered ones before it; all numbered ones if the tag names none."""
        tagged = self.last_checkpoint()
        files = self.numbered()[::-1]
        if not tagged or tagged == os.path.join(self.save_dir, ""):
            return files
        newest, match = Path(tagged), _NUMBERED.fullmatch(os.path.basename(tagged))
        before = [path for path in files if path != newest and (match is None or path.stem < newest.stem)]
        return [newest, *before]

    def _remedy(self, path: str) -> str:
        """Return the remedy for a missing checkpoint, by the origin of its path."""
        if path == self.last_checkpoint():
            return f"put it back, or remove the file last_checkpoint of {self.save_dir}"
        if is_small_data(path):
            return f"{SMALL_DATA_REMEDY}, {WITHOUT_CHECKOUT}"
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
