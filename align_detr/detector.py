"""The three-line API: a detector with its weights, from images to detections.

from align_detr import Detector

detector = Detector("align_detr/align_dino_r50_4scale_12ep.py", weights="model.pth")
found = detector.predict("photo.jpg")
"""

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import LazyConfig, instantiate
from omegaconf import DictConfig
from torch import nn

from align_detr.checkpoint.contents import WEIGHTS_FILE, read_weights, write_weights
from align_detr.checkpoint.loading import load_weights
from align_detr.engine.config_in_file import build_untrusted, config_in_file
from align_detr.engine.distributed import check_device
from align_detr.errors import ConfigError
from align_detr.inference import training
from align_detr.inference.building import classes_of, read_test_view, set_class_count
from align_detr.inference.configs import config_text, named_config, training_config
from align_detr.inference.detections import Classes, Detections
from align_detr.inference.running import Options, Runner
from align_detr.inference.sources import OnError, is_endless, is_one, pictures
from align_detr.inference.views import TestView
from align_detr.shipped import SHIPPED, shipped_weights

logger = logging.getLogger(__name__)


class Detector:
    """A detector ready for use: images in, detections out; training and evaluation on a data set's folder.

    config: a path, a name of the model zoo, or a loaded config; "digits" is a small detector that comes with the
    package. None: the config that our training keeps in its file of weights. weights: a local file, of our training or
    a published one, whose averaged weights are taken if it has any, unless `averaged` is False. Without weights the
    model is as its config initialises it, for training alone. device: by default CUDA where there is a GPU.
    Raise ConfigError for a config or a file that cannot be used, and EnvironmentProblem for a device that is not there.

    `model` is the module, in evaluation mode, `config` its config.
    """

    def __init__(
        self,
        config: str | Path | DictConfig | None = None,
        *,
        weights: str | Path | None = None,
        device: str | None = None,
        averaged: bool = True,
    ) -> None:
        if isinstance(config, str) and config in SHIPPED and weights is None:
            weights, config = shipped_weights(config), None
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        check_device(device)
        self._load(config, weights, device, averaged)

    def _load(
        self, config: str | Path | DictConfig | None, path: str | Path | None, device: str, averaged: bool
    ) -> None:
        weights = None if path is None else read_weights(path, averaged=averaged)
        names = None if weights is None else weights.class_names
        if config is not None:
            self.config = named_config(config)
            if names is not None:
                set_class_count(self.config, len(names))
        elif weights is not None:
            self.config = config_in_file(weights)
        else:
            raise ConfigError(
                "A Detector needs a config or weights: pass weights=FILE for a file that training here has written, a "
                f"config with weights=FILE for others, or one of {', '.join(SHIPPED)}."
            )
        in_file = config is None and weights is not None
        model: Any = build_untrusted(self.config, str(path)) if in_file else instantiate(self.config.model)
        self.model: nn.Module = model
        self.averaged, self._has_weights = weights is not None and weights.averaged, weights is not None
        if weights is None:
            logger.warning("The detector has no weights and finds nothing sensible before it is trained.")
        else:
            load_weights(self.model, weights, class_names=names, strict=True).require_nothing_left_over()
        self.model.to(device).eval()
        classes = classes_of(self.config, int(model.num_classes), names)
        self._runner = Runner(self.model, read_test_view(self.config), classes)

    @property
    def classes(self) -> Classes:
        """Names of the classes, and their category ids in the data set."""
        return self._runner.classes

    @property
    def test_view(self) -> TestView:
        """What the config's test mapper does to an image."""
        return self._runner.view

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of the model's logits and of `pred_classes`."""
        return list(self.classes.names)

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(self.model.parameters()).device

    def predict(
        self,
        source: Any,
        *,
        threshold: float | None = None,
        batch_size: int = 1,
        top_k: int | None = None,
        flip: bool = False,
        sides: int | Sequence[int] | None = None,
        nms: float | None = None,
        channels: str = "RGB",
    ) -> Any:
        """Return the Detections of one image, a list of them for several or a folder, an iterator for a video.

        source: a path (of an image, a folder, a video), a PIL image, an array (H, W, 3) in RGB as PIL's (as OpenCV's
        with channels="BGR") or grey (H, W), a tensor (3, H, W), or a list of those. Arrays and tensors hold uint8 from
        0 to 255 or floats from 0 to 1. Nothing is fetched from URLs. Boxes are in the pixels of the image as shown.
        threshold: least score; by default none, and each image has the number of detections that the config gives
        (`model.postprocess.num_detections`, 300 in DINO; every query in DETR), or the `top_k` best.
        batch_size: images per pass; what is found in an image does not depend on it.
        flip, sides: test-time augmentation, in the image flipped as well, and in each of several short sides in pixels
        (a number: in that size in place of the config's). The views are merged as `merge_views` says, without NMS, or
        by detectron2's NMS at the IoU `nms`.
        Raise ConfigError for a source or a number that cannot be used, and DatasetError for an image that cannot be
        read.
        """
        options: dict[str, Any] = dict(threshold=threshold, top_k=top_k, flip=flip, sides=sides, nms=nms)
        found = self.stream(source, batch_size=batch_size, channels=channels, **options)
        if is_endless(source):
            return found
        return next(found) if is_one(source) else list(found)

    def stream(
        self,
        source: Any,
        *,
        batch_size: int = 1,
        channels: str = "RGB",
        on_error: OnError | None = None,
        **options: Any,
    ) -> Iterator[Detections]:
        """Return an iterator of the Detections of each image or frame, which are read as they are asked for.

        source: as in `predict`, also an iterator of images. No more than `batch_size` images are in memory. on_error:
        called with the DatasetError of each image that cannot be read, which is then left out; by default it is raised.
        options: threshold, top_k, flip, sides, nms, as in `predict`.
        """
        chosen = Options(**options)
        chosen.check(self.model)
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}, but a pass takes at least one image: set it to 1 or more.")
        images = pictures(source, channels=channels, on_error=on_error)
        return self._runner.stream(images, chosen, batch_size=batch_size, on_error=on_error)

    def train(
        self,
        data: str | Path,
        *,
        epochs: int | None = None,
        output_dir: str | Path | None = None,
        overrides: Sequence[str] = (),
        **options: Any,
    ) -> Mapping[str, Any]:
        """Train on a data set's folder in this process, starting from the detector's weights, and become what results.

        Return the last evaluation's results. epochs, overrides ("key=value"): of the config. output_dir: of the run;
        ./output/NAME by default, NAME from the folder. Classes that have the names of the detector's keep their rows.
        options: layout, val_fraction, split_seed, as in `align_detr.train`. Raise AlignDetrError as that does.
        """
        folder = training.output_folder(data, output_dir, layout=options.get("layout"))
        cfg, start = self._whole_config(), None
        if self._has_weights:
            start = self.save(folder / training.START / WEIGHTS_FILE)
        results = training.train(cfg, start, data=data, folder=folder, epochs=epochs, overrides=overrides, **options)
        trained = LazyConfig.load(str(folder / "config.yaml"))
        training.take_length(trained, cfg)  # what was given for this data is not of the next
        self._load(trained, training.trained_weights(folder), str(self.device), averaged=True)
        return results

    def evaluate(self, data: str | Path, *, output_dir: str | Path | None = None, **options: Any) -> Mapping[str, Any]:
        """Evaluate on a data set's folder and return the results, {"bbox": {"AP": ...}}.

        The detections are written into `output_dir`, by default ./output/evaluate_NAME. options: split, layout,
        val_fraction, split_seed, overrides, as in `align_detr.evaluate`. Raise AlignDetrError as that does.
        """
        folder = training.output_folder(data, output_dir, "evaluate_", layout=options.get("layout"))
        with tempfile.TemporaryDirectory() as beside:
            weights = self.save(Path(beside) / WEIGHTS_FILE)
            return training.evaluate(self._whole_config(), weights, data=data, folder=folder, **options)

    def _whole_config(self) -> DictConfig:
        """Return a copy of the config with what training needs, on the detector's device, with its class names."""
        cfg = training_config(self.config)
        cfg.train.device = str(self.device)
        cfg.train.class_names = self.class_names
        return cfg

    def save(self, path: str | Path) -> Path:
        """Write weights, config and class names into a file, which `Detector(weights=path)` loads; return the path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_weights(
            path, self.model, class_names=self.class_names, config=config_text(self.config), averaged=self.averaged
        )
        return path
