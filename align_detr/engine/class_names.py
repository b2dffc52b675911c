"""What checkpoints hold beside weights: names of the classes, which the weights alone do not tell, and the config."""

import logging
import re
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from detectron2.config import LazyConfig
from omegaconf import DictConfig

from align_detr.checkpoint.contents import NO_CLASS_NAME, is_class_name
from align_detr.checkpoint.files import write_file
from align_detr.data.datasets import describe_difference, known_classes
from align_detr.errors import DatasetError

logger = logging.getLogger(__name__)

_ABSOLUTE = (
    r"['\"]?(?:/|[A-Za-z]:[\\/])"  # begin of a path of this machine in YAML, whose lines LazyConfig does not break
)


class ClassNames:
    """Names of the classes of training data, in the order of the model's logits; None if the data names none.

    Raise DatasetError for a name that a file of weights may not hold.
    """

    def __init__(self, dataset_names: Sequence[str]) -> None:
        names = known_classes(dataset_names[0]) if dataset_names else None
        self.names = None if names is None else list(names)
        for name in self.names or ():
            if not is_class_name(name):  # else nothing reads the checkpoints
                raise DatasetError(
                    f"The data set '{dataset_names[0]}' has the class {name!r}, {NO_CLASS_NAME}: rename it."
                )

    def state_dict(self) -> dict[str, Any]:
        """Return the names as a checkpoint holds them."""
        return {"names": self.names}


def write_config(cfg: DictConfig, path: Path) -> None:
    """Write a config as `LazyConfig.save` does, whole or not at all: as YAML, else, beside an empty file, as .pkl."""
    with tempfile.TemporaryDirectory() as folder:
        LazyConfig.save(cfg, str(Path(folder, path.name)))
        for written in Path(folder).iterdir():
            write_file(path.with_name(written.name), partial(_write, written.read_bytes()))
            if written.suffix == ".pkl":  # which detectron2 has warned of, with the other folder
                logger.warning("The config of the run is in %s.", path.with_name(written.name))


def _write(content: bytes, file: IO[bytes]) -> None:
    file.write(content)


class TrainedConfig:
    """Text of a run's config.yaml, as its checkpoints hold it; None where the config cannot be written as YAML.

    Paths of this machine are left out: the files are shared.
    """

    def __init__(self, path: Path) -> None:
        self.text = without_local_paths(path.read_text(encoding="utf-8")) if path.is_file() else None

    def state_dict(self) -> dict[str, Any]:
        """Return the text as a checkpoint holds it."""
        return {"yaml": self.text}


def without_local_paths(text: str) -> str:
    """Return a config's YAML with no absolute path in `train` and `model`: no start, no teacher, and results in
    ./output.
    """
    text = re.sub(rf"^  (init_checkpoint|teacher): {_ABSOLUTE}.*$", r"  \1: ''", text, flags=re.MULTILINE)
    return re.sub(
        rf"^  output_dir: {_ABSOLUTE}.*?([\w.-]+)['\"]?$", r"  output_dir: ./output/\1", text, flags=re.MULTILINE
    )


def check_trained_classes(trained: Sequence[str] | None, path: str, dataset_names: Sequence[str]) -> None:
    """Raise DatasetError if `trained`, the classes of the checkpoint `path`, are others than those of a data set.

    Checkpoints and data sets without names pass.
    """
    for name in dataset_names:
        classes = known_classes(name)
        if trained is not None and classes is not None and list(classes) != list(trained):
            raise DatasetError(
                f"{path} was trained for other classes than the data set '{name}' has, "
                f"{describe_difference(trained, classes)}: give the data set the categories of the training data, with "
                "the same ids."
            )
