"""Training and evaluation on a data set's folder from Python, as the commands do it."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from align_detr.checkpoint.contents import Weights, read_weights
from align_detr.data.layouts import DataFolder, find
from align_detr.engine import run
from align_detr.engine.config_in_file import build_untrusted, config_in_file
from align_detr.engine.data_config import DEFAULT_CONFIG, DataOptions, class_count_keys, registered_name, write_config
from align_detr.engine.start import set_up
from align_detr.errors import ConfigError
from align_detr.lazy_config import load_config

logger = logging.getLogger(__name__)


def train(
    config_file: str = DEFAULT_CONFIG,
    *,
    data: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    layout: str | None = None,
    val_fraction: float = 0.2,
    split_seed: int = 0,
) -> Mapping[str, Any]:
    """Train in this process and return the last evaluation's results, {"bbox": {"AP": ...}}.

    config_file: path or model-zoo name. data: the folder of a data set in COCO's, Pascal VOC's or YOLO's layout or in
    shards; None: what the config names. overrides: "key=value". resume, overwrite: continue, or remove, an earlier run
    in the same output folder, which is refused otherwise. layout: of a folder that holds several. val_fraction,
    split_seed: of the validation split, where the folder has none. Raise AlignDetrError for everything that a user can
    correct.
    """
    if data is not None:
        options = DataOptions(str(data), layout, val_fraction, split_seed)
        config_file = str(write_config(options, config_file, overrides, resume=resume, overwrite=overwrite))
    cfg = load_config(config_file, overrides)
    set_up(cfg.train)
    return run.train(cfg, resume=resume, overwrite=overwrite)


def evaluate(
    weights: str | Path,
    *,
    data: str | Path,
    split: str | None = None,
    config_file: str | None = None,
    overrides: Sequence[str] = (),
    layout: str | None = None,
    val_fraction: float | None = None,
    split_seed: int | None = None,
    averaged: bool = True,
    layers: bool = False,
    against: str | Path = "",
) -> Mapping[str, Any]:
    """Evaluate the checkpoint `weights` on a data set's folder and return the results, {"bbox": {"AP": ...}}.

    split: "val" by default, else "test", else all of a data set without splits. config_file: path or model-zoo name of
    a config, which is run. None: the config in the weights, else the config.yaml beside them; as data, of which the
    model, the sizes of images and the class names are taken. The classes are compared by name with those of the
    training. averaged=False: of a checkpoint with averaged weights, the plain ones. Results go to a folder of their own
    beside the weights, unless `overrides` set train.output_dir.
    val_fraction, split_seed: either of them, or split="val", divides a data set without a validation split as training
    does, with the same defaults, and evaluates what training held out.
    layers: evaluate every decoder layer as well, whose files lie in `layers` beside the detections; against: another
    checkpoint of the same config, with whose matching that of `weights` is compared (docs/layers.md).
    Raise AlignDetrError for everything that a user can correct.
    """
    if against and not layers:
        raise ConfigError("Another checkpoint is compared by its layers' matching only: give layers=True (--layers).")
    path = Path(weights)
    content = read_weights(path)
    cfg = _config_of(content, config_file, overrides)
    if not averaged:
        OmegaConf.update(cfg, "train.init_averaged", False, force_add=True)
    found = find(data, layout=layout)
    if "train" in found.splits and (split == "val" or val_fraction is not None or split_seed is not None):
        fraction = DataOptions.val_fraction if val_fraction is None else val_fraction
        found = found.with_validation(fraction=fraction, seed=split_seed or DataOptions.split_seed)
    name = split or next(each for each in ("val", "test", "train") if each in found.splits)
    chosen = DataFolder(found.root, found.layout, {name: found.split(name)})
    trained = cfg.train.get("class_names", None) or content.class_names
    names = found.class_names if trained is None else list(trained)
    (dataset,) = chosen.with_class_names(names).register(registered_name(found))
    OmegaConf.update(cfg, "dataloader.test.dataset", dataset)
    if trained is None:
        for key in class_count_keys(cfg.model):
            OmegaConf.update(cfg, key, len(names))
    if not any(text.startswith("train.output_dir=") for text in overrides):
        cfg.train.output_dir = str(path.parent / f"evaluate_{dataset}")
    set_up(cfg.train)
    logger.info("Evaluating %s on %s of %s.", path, name, found.root)
    if split is None and name == "train":
        logger.warning(
            "%s has no validation or test split, and all its %d images count, also those trained on: for those that "
            "training held out, give --split val, with training's --val-fraction and --split-seed.",
            found.root,
            found.split(name).num_images,
        )
    return run.evaluate_only(cfg, checkpoint=str(path), layers=layers, against=str(against))


def _config_of(weights: Weights, config_file: str | None, overrides: Sequence[str]) -> DictConfig:
    """Return the config that is named, else that in the weights, else that beside them; raise ConfigError without."""
    if config_file:
        return load_config(config_file, overrides)
    device = f"train.device={'cuda' if torch.cuda.is_available() else 'cpu'}"
    cfg = config_in_file(weights, [device, "train.ema.enabled=False", *overrides])
    build_untrusted(cfg, weights.path)
    return cfg
