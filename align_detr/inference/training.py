"""Training and evaluation of a detector on a data set's folder, by way of files that also run by themselves."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf

from align_detr.checkpoint.contents import WEIGHTS_FILE
from align_detr.data.layouts import find
from align_detr.engine import from_folder
from align_detr.engine.data_config import MIN_EPOCHS, DataOptions, default_length, make_config, registered_name
from align_detr.engine.output_folder import check_folder
from align_detr.errors import AlignDetrError

START = "start"  # folder of what a training begins with, in that of its results


def output_folder(data: str | Path, given: str | Path | None, prefix: str = "", **options: Any) -> Path:
    """Return the folder of a run's results: the given one, or one of the data set's name in ./output."""
    if given is not None:
        return Path(given)
    return Path("output") / f"{prefix}{registered_name(find(data, **options))}"


def write_config(cfg: DictConfig, path: Path) -> None:
    """Write a config as YAML, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    LazyConfig.save(cfg, str(path))


@dataclass(frozen=True)
class Start:
    """What a training begins with: a whole config, and what writes the weights into a file, None without any."""

    cfg: DictConfig
    write_weights: Callable[[Path], Path] | None


def train(
    start: Start,
    *,
    data: str | Path,
    folder: Path,
    epochs: int | None,
    overrides: Sequence[str],
    resume: bool = False,
    overwrite: bool = False,
    **options: Any,
) -> Mapping[str, Any]:
    """Train from `start`, with results in `folder`; return them.

    epochs: None for the length that the config states, or if it states none for that of the default config. Data,
    overrides and the folder are checked before anything is written; a training that fails before its first checkpoint
    leaves the folder as it was, but for its log.
    """
    run = start.cfg.copy()
    if start.write_weights is not None:
        run.train.init_checkpoint = str((folder / START / WEIGHTS_FILE).absolute())
    if epochs is not None:
        run.train.update(epochs=epochs, max_iter=None)
    elif run.train.epochs is None and run.train.max_iter is None:
        images = len(find(data, layout=options.get("layout")).split("train").annotations.images)
        for key, value in default_length(run, images).items():
            OmegaConf.update(run, key, value)
    settings = [f"train.output_dir={json.dumps(str(folder))}", *overrides]
    with TemporaryDirectory() as beside:
        draft = Path(beside) / "config.yaml"
        write_config(run, draft)
        path, _ = make_config(DataOptions(str(data), **options), str(draft), settings)
    check_folder(path.parent, resume=resume, overwrite=overwrite)
    config = folder / START / "config.yaml"
    with undone_on_failure(folder):
        write_config(run, config)
        if start.write_weights is not None and not (resume and (folder / START / WEIGHTS_FILE).is_file()):
            start.write_weights(folder / START / WEIGHTS_FILE)
        return from_folder.train(
            str(config), data=data, overrides=settings, resume=resume, overwrite=overwrite, **options
        )


@contextmanager
def undone_on_failure(folder: Path) -> Iterator[None]:
    """Put the start of an earlier run and its config.py back, or remove the new ones, if nothing has been saved."""
    start, kept, config = folder / START, folder / f".{START}", folder / "config.py"
    new, saved = not folder.exists(), _checkpoints(folder)
    text = config.read_bytes() if config.is_file() else None
    if start.is_dir():
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(start, kept)
    try:
        yield
    except BaseException as error:
        if not _checkpoints(folder).items() - saved.items():
            shutil.rmtree(start, ignore_errors=True)
            if kept.is_dir():
                kept.replace(start)
            if text is not None:
                config.write_bytes(text)
            else:
                config.unlink(missing_ok=True)
            if new and isinstance(error, AlignDetrError):
                shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(kept, ignore_errors=True)


def _checkpoints(folder: Path) -> dict[Path, int]:
    """Return the checkpoints in a folder, with their times."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("model_*.pth")}


def evaluate(
    cfg: DictConfig, weights: Path, *, data: str | Path, folder: Path, overrides: Sequence[str] = (), **options: Any
) -> Mapping[str, Any]:
    """Evaluate `weights` in what `cfg` describes; write its detections into `folder` and return the results."""
    run = cfg.copy()
    if run.train.epochs is None and run.train.max_iter is None:
        run.train.epochs = MIN_EPOCHS  # a config states a length, also where nothing trains
    run.train.ema.enabled = False  # these weights are what to evaluate, averages or not
    config = weights.parent / "config.yaml"
    write_config(run, config)
    where = f"train.output_dir={json.dumps(str(folder))}"
    return from_folder.evaluate(weights, data=data, config_file=str(config), overrides=[where, *overrides], **options)


def take_length(cfg: DictConfig, source: DictConfig) -> None:
    """Give a config the length, and the periods of evaluations and checkpoints, of `source`."""
    for key in ("epochs", "max_iter", "eval_period", "eval_epochs", "checkpointer.period"):
        OmegaConf.update(cfg, f"train.{key}", OmegaConf.select(source, f"train.{key}"))


def trained_weights(folder: Path) -> Path:
    """Return the file of a finished run's evaluated weights."""
    alone = folder / WEIGHTS_FILE
    return alone if alone.is_file() else folder / "model_final.pth"
