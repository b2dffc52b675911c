"""A training config made from a data set's folder: a file that runs by itself later."""

import json
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, ListConfig

from align_detr.checkpoint.contents import NO_CLASS_NAME, is_class_name
from align_detr.data.layouts import DataFolder, find
from align_detr.engine.output_folder import check_folder
from align_detr.engine.run_length import check_batch
from align_detr.errors import ConfigError, DatasetError
from align_detr.lazy_config import REQUIRED, load_config

logger = logging.getLogger(__name__)

DEFAULT_CONFIG = "quickstart/your_data.py"
MIN_EPOCHS, MIN_ITERATIONS = 12, 1000  # of the default config, whichever takes longer
_EVALUATIONS = 10  # in a run of the default config, at most


@dataclass(frozen=True)
class DataOptions:
    """Which data set: its folder, its layout if the folder holds several, and the validation split if it has none."""

    folder: str
    layout: str | None = None
    val_fraction: float = 0.2
    split_seed: int = 0


def write_config(
    data: DataOptions,
    config_file: str = DEFAULT_CONFIG,
    overrides: Sequence[str] = (),
    *,
    resume: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write config.py into the output folder of a run and return its path; `make_config` says what it holds.

    A config.py that is there and differs is kept as config.py.1, or under the next free number, which is logged.
    Raise DatasetError and ConfigError for what cannot be used, and ConfigError if config.py is `config_file` itself, or
    if the folder has an earlier run, which `resume` continues and `overwrite` replaces.
    """
    path, text = make_config(data, config_file, overrides)
    if path.is_file() and os.path.isfile(config_file) and path.samefile(config_file):
        raise ConfigError(f"{config_file} names its data already: leave out --data, or set another train.output_dir.")
    check_folder(path.parent, resume=resume, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    old = path.read_bytes() if path.is_file() else None
    if old == text.encode():
        return path
    if old is not None:
        logger.warning("%s differs from the new config: it is kept as %s.", path, _keep(path, old))
    new = path.with_name(f".config.{os.getpid()}.py")  # several processes write the same: none sees a half of it
    new.write_bytes(text.encode())
    new.replace(path)
    return path


def make_config(
    data: DataOptions, config_file: str = DEFAULT_CONFIG, overrides: Sequence[str] = ()
) -> tuple[Path, str]:
    """Return the path and the text of the config of a run; nothing is written.

    It is `config_file` with the data set, its classes, `overrides` and, in the default config, the length of the run.
    The data set is read for it. Raise DatasetError and ConfigError for what cannot be used.
    """
    base = load_config(config_file, overrides)
    found = find(data.folder, layout=data.layout).with_validation(fraction=data.val_fraction, seed=data.split_seed)
    found.require_training()
    name, names = registered_name(found), found.class_names
    _check_names(found, names)
    given = dict(_assignments(overrides))
    output_dir = f"./output/{name}" if "train.output_dir" not in given else base.train.output_dir
    settings: dict[str, Any] = {
        **dict.fromkeys(class_count_keys(base.model), len(names)),
        "dataloader.train.dataset": f"{name}_train",
        "dataloader.test.dataset": f"{name}_val",
        "train.class_names": list(names),
        "train.output_dir": output_dir,
    }
    if "train.epochs" in given:  # which the file would otherwise read beside another length
        settings |= {"train.max_iter": base.train.max_iter, "train.eval_period": base.train.eval_period}
        settings |= {"train.checkpointer.period": base.train.checkpointer.period}
    if config_file == DEFAULT_CONFIG and not {"train.epochs", "train.max_iter"} & set(given):
        settings |= default_length(base, found.splits["train"].num_images)
    source = str(Path(config_file).absolute()) if os.path.isfile(config_file) else config_file
    return Path(output_dir) / "config.py", _text(found, data, names, source, {**settings, **given})


def _keep(path: Path, content: bytes) -> Path:
    """Write `content` beside `path` under the first free number and return the copy's path."""
    for number in count(1):
        copy = path.with_name(f"{path.name}.{number}")
        if copy.is_file() and copy.read_bytes() == content:  # another process of this run has kept it
            break
        try:
            with copy.open("xb") as file:
                file.write(content)
            break
        except FileExistsError:
            continue
    return copy


def _check_names(found: DataFolder, names: Sequence[str]) -> None:
    """Raise DatasetError for a class name that a config would replace by the value of a key, or that is no line."""
    for name in names:
        if not is_class_name(name):
            raise DatasetError(f"{found.root} has the class {name!r}, {NO_CLASS_NAME}: rename it in the annotations.")


def registered_name(found: DataFolder) -> str:
    """Return the name of a data set's folder as one word: the beginning of the names that it is registered under."""
    return re.sub(r"\W+", "_", found.name).strip("_") or "data"


def class_count_keys(model: DictConfig) -> list[str]:
    """Return the keys of the model's numbers of classes, those that follow from another key left out.

    A model of ours has `model.head.num_classes`, an R-CNN `model.roi_heads.num_classes`. Raise ConfigError without any.
    """
    counts = dict(_plain_counts(model, "model"))
    main = next((counts[key] for key in ("model.head", "model.roi_heads") if key in counts), None)
    keys = [f"{key}.num_classes" for key, count in counts.items() if main is None or count == main]
    if not keys:
        raise ConfigError("The config's model has no num_classes to set: use a config with model.head.num_classes.")
    return keys


def _plain_counts(node: Any, key: str) -> Iterator[tuple[str, int]]:
    """Yield the nodes with a num_classes that is a number, not an interpolation, and the number."""
    if isinstance(node, DictConfig):
        raw = node._get_node("num_classes") if "num_classes" in node else None
        if raw is not None and isinstance(raw._value(), int):
            yield key, raw._value()
    children = node.keys() if isinstance(node, DictConfig) else range(len(node)) if isinstance(node, ListConfig) else ()
    for child in children:
        below = node._get_node(child)
        if isinstance(below, (DictConfig, ListConfig)) and not below._is_interpolation() and not below._is_none():
            yield from _plain_counts(below, f"{key}.{child!s}")


def default_length(base: DictConfig, images: int) -> dict[str, Any]:
    """Return epochs and the period of evaluations and checkpoints for the default config."""
    per_epoch = max(1, images // check_batch(base.dataloader.train, 1))
    epochs = max(MIN_EPOCHS, math.ceil(MIN_ITERATIONS / per_epoch))
    period = per_epoch * math.ceil(epochs / _EVALUATIONS)
    return {"train.epochs": epochs, "train.eval_period": period, "train.checkpointer.period": period}


def _assignments(overrides: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield key and value of each override."""
    parser = OverridesParser.create()
    for override in parser.parse_overrides(list(overrides)):
        yield override.key_or_group, override.value()


def _text(found: DataFolder, data: DataOptions, names: list[str], source: str, settings: Mapping[str, Any]) -> str:
    """Return the config file."""
    counts = ", ".join(f"{split.num_images} {name}" for name, split in found.splits.items())
    values = {key: _literal(value) for key, value in settings.items()}
    lines = [
        "# Made by `align-detr train --data`.",
        "# It runs by itself with `align-detr train --config-file`.",  # Python looks for "coding:" in two lines
        f"# {found.name!r}, in the layout {found.layout}: {counts} images; number of classes: {len(names)}.",
        "",
        "from align_detr.data import find",
        "from align_detr.lazy_config import load_config",
        "",
        f"_data = find({_literal(str(found.root.resolve()))}, layout={_literal(found.layout)})",
        f"_data = _data.with_validation(fraction={data.val_fraction!r}, seed={data.split_seed!r})",
        f"_classes = {_literal(names)}",
        f"_data.with_class_names(_classes).register({_literal(registered_name(found))})",
        "",
        f"_config = load_config({_literal(source)})",
        *(f"{key} = _config.{key}" for key in REQUIRED),
        "",
        *(f"{_python_key(key)} = {value}" for key, value in values.items()),
    ]
    return "\n".join(lines) + "\n"


def _literal(value: Any) -> str:
    """Return Python's literal of a value, with double quotes."""
    if isinstance(value, str):  # UTF-8 has no lone surrogates, by which Python knows other bytes of a file's name
        surrogate = any("\ud800" <= letter <= "\udfff" for letter in value)
        return ascii(value) if surrogate else json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(each)}" for key, each in value.items()) + "}"
    return repr(value)


def _python_key(key: str) -> str:
    """Return a dotted key as Python writes it: entries of lists by their index."""
    first, *parts = key.split(".")
    return first + "".join(f".{part}" if part.isidentifier() else f"[{part}]" for part in parts)
