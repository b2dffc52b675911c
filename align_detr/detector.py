"""The three-line API: a detector with its weights, from images to detections.

from align_detr import Detector

detector = Detector("align_detr/align_dino_r50_4scale_12ep.py", weights="model.pth")
found = detector.predict("photo.jpg")
"""

import dataclasses
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import LazyConfig, instantiate
from omegaconf import DictConfig

from align_detr.checkpoint.contents import WEIGHTS_FILE, read_weights, write_weights
from align_detr.checkpoint.loading import load_weights
from align_detr.checks import check_choice, check_count, check_number, check_texts, require_finite
from align_detr.engine.config_in_file import build_untrusted, config_in_file
from align_detr.engine.distributed import check_device
from align_detr.errors import ConfigError, EnvironmentProblem
from align_detr.inference import training
from align_detr.inference.building import classes_of, read_test_view, set_class_count
from align_detr.inference.classes import Classes
from align_detr.inference.configs import config_text, named_config, training_config
from align_detr.inference.detections import Detections
from align_detr.inference.optimized import optimize_for_inference
from align_detr.inference.pixels import CHANNELS
from align_detr.inference.running import Options, Runner
from align_detr.inference.sources import OnError, in_form_of, pictures
from align_detr.inference.views import TestView
from align_detr.shipped import SHIPPED, shipped_weights, weights_file

logger = logging.getLogger(__name__)


class Detector:
    """A detector ready for use: images in, detections out; training and evaluation on a data set's folder.

    config: a path, a name of the model zoo, or a loaded config; "digits" is a small detector that comes with the
    package. None: the config that our training keeps in its file of weights. weights: a local file, of our training or
    a published one, whose averaged weights are taken if it has any, unless `averaged` is False. Without weights the
    model is as its config initialises it, for training alone: it refuses to predict. device: by default CUDA where
    there is a GPU.
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
        if device != "meta":  # a detector without numbers still has keys, shapes and counts
            check_device(device, key="device")
        self._load(config, None if weights is None else weights_file(weights), device, averaged)

    def _load(
        self, config: str | Path | DictConfig | None, path: str | Path | None, device: str, averaged: bool
    ) -> None:
        weights = None if path is None else read_weights(path, averaged=averaged)
        names = None if weights is None else weights.class_names
        if config is not None:
            cfg = named_config(config)
            if names is not None:
                set_class_count(cfg, len(names))
        elif weights is not None:
            cfg = config_in_file(weights)
            cfg.train.update(epochs=None, max_iter=None)  # a training's length follows from its data
        else:
            raise ConfigError(
                "A Detector needs a config or weights: pass weights=FILE for a file that training here has written, a "
                f"config with weights=FILE for others, or one of {', '.join(SHIPPED)}."
            )
        in_file = config is None and weights is not None
        model: Any = build_untrusted(cfg, str(path)) if in_file else instantiate(cfg.model)
        if weights is None:
            logger.warning("The detector has no weights and finds nothing before it is trained.")
        else:
            load_weights(model, weights, class_names=names, strict=True).require_nothing_left_over()
            require_finite(model, weights.path)
        model.to(device).eval()
        self._runner = Runner(model, read_test_view(cfg), classes_of(cfg, int(model.num_classes), names))
        self.config, self.model = cfg, model
        self.averaged, self._has_weights = weights is not None and weights.averaged, weights is not None

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
        white_level: float | None = None,
    ) -> Any:
        """Return the Detections of one image, a list of them for several or a folder, an iterator for a video.

        source: a path (of an image, a folder, a video), a file's bytes or the open file, a PIL image, an array
        (H, W, 3) in RGB as PIL's (as OpenCV's with channels="BGR") or grey (H, W), a tensor (3, H, W), or a list of
        those. Arrays and tensors hold uint8 from 0 to 255 or floats from 0 to 1. Nothing is fetched from URLs. Boxes
        are in the pixels of the image as shown.
        threshold: least score; by default none, and each image has the number of detections that the config gives
        (`model.postprocess.num_detections`, 300 in DINO; every query in DETR), or the `top_k` best.
        batch_size: images per pass; what is found in an image does not depend on it.
        flip, sides: test-time augmentation, in the image flipped as well, and in each of several short sides in pixels
        (a number: in that size in place of the config's). The views are merged as `merge_views` says, without NMS, or
        by detectron2's NMS at the IoU `nms`.
        white_level: the level of grey images of more than 8 bits that becomes 255; by default the config's, else 65535.
        Raise ConfigError for a source or a number that cannot be used, and of a detector without weights, and
        DatasetError for an image that cannot be read.
        """
        found = self.stream(
            source,
            batch_size=batch_size,
            channels=channels,
            threshold=threshold,
            top_k=top_k,
            flip=flip,
            sides=sides,
            nms=nms,
            white_level=white_level,
        )
        return in_form_of(source, found)

    def stream(
        self,
        source: Any,
        *,
        batch_size: int = 1,
        channels: str = "RGB",
        on_error: OnError | None = None,
        threshold: float | None = None,
        top_k: int | None = None,
        flip: bool = False,
        sides: int | Sequence[int] | None = None,
        nms: float | None = None,
        white_level: float | None = None,
    ) -> Iterator[Detections]:
        """Return an iterator of the Detections of each image or frame, which are read as they are asked for.

        source: as in `predict`, also an iterator of images. No more than `batch_size` images are in memory. on_error:
        called with the DatasetError of each image that cannot be read, which is then left out; by default it is raised.
        All other arguments are as in `predict`.
        """
        self._require_weights()
        options = Options(threshold, top_k, white_level, flip=flip, sides=sides, nms=nms)
        options.check(self.model)
        self.test_view.views(flip=flip, sides=sides)  # checks them
        check_count(batch_size, "batch_size")
        check_choice(channels, "channels", CHANNELS)
        images = pictures(source, channels=channels, on_error=on_error)
        return self._runner.stream(images, options, batch_size=batch_size, on_error=on_error)

    def optimize(self, *, precision: str = "float32") -> "Detector":
        """Predict with a faster copy of the model from now on, until the next training, and return the detector.

        precision: as in `align_detr.optimize_for_inference`. `model`, which is saved, trained and evaluated, stays as
        it is. Raise ConfigError and EnvironmentProblem as that does.
        """
        self._runner = dataclasses.replace(self._runner, model=optimize_for_inference(self.model, precision=precision))
        return self

    def export(
        self,
        file: str | Path,
        format: str = "onnx",
        *,
        size: str | int | Sequence[int] | None = None,
        batch: int | str = 1,
        normalised: bool = False,
        fp16: bool = False,
        int8: str | Path | None = None,
        simplify: bool = False,
    ) -> Path:
        """Write the detector into one file that runs without this library, and return its path (docs/export.md).

        format: "onnx", a file FILE.onnx that `OnnxDetector` reads, "torch", a program FILE.pt2 of `torch.export`,
        or "compiled", machine code FILE.pt2 of PyTorch's ahead-of-time compiler, for processors like this one.
        size: (height, width) in pixels, "800x1333", a number for a square, or "dynamic"; by default the short and the
        long side of the config's test mapper. batch: images per pass, or "dynamic". normalised: the file takes
        normalised images in the model's channel order in place of uint8 in RGB. fp16, int8, simplify: of ONNX files;
        int8 is a folder of images to calibrate with.
        What the file finds is compared with the detector before it is written, in a second size and batch where these
        are free. Without weights it is a detector of random ones. Raise ConfigError for what cannot be exported, and
        EnvironmentProblem if a package is missing or the file differs.
        """
        from align_detr.export.export import default_size, export  # here, as it takes time to import
        from align_detr.export.options import check_file, read_options

        path = check_file(file, format)
        options = read_options(
            format,
            size=default_size(self.test_view) if size is None else size,
            batch=batch,
            normalised=normalised,
            fp16=fp16,
            int8=int8,
            simplify=simplify,
        )
        if not self._has_weights:
            logger.warning("The detector has no weights: %s gets random ones.", path)
        export(path, format, options, model=self.model, classes=self.classes, view=self.test_view)
        return path

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
        overrides = check_texts(overrides, "overrides", "train.epochs=12")
        if epochs is not None:
            check_number(epochs, "epochs", 0)
        folder = training.output_folder(data, output_dir, layout=options.get("layout"))
        begin = training.Start(self._whole_config(), self.save if self._has_weights else None)
        results = training.train(begin, data=data, folder=folder, epochs=epochs, overrides=overrides, **options)
        trained = LazyConfig.load(str(folder / "config.yaml"))
        training.take_length(trained, begin.cfg)  # what was given for this data is not of the next
        self._load(trained, training.trained_weights(folder), str(self.device), averaged=True)
        return results

    def evaluate(self, data: str | Path, *, output_dir: str | Path | None = None, **options: Any) -> Mapping[str, Any]:
        """Evaluate on a data set's folder and return the results, {"bbox": {"AP": ...}}.

        The detections are written into `output_dir`, by default ./output/evaluate_NAME. options: split, layout,
        val_fraction, split_seed, overrides, as in `align_detr.evaluate`. Raise AlignDetrError as that does.
        """
        self._require_weights()
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

    def _require_weights(self) -> None:
        if not self._has_weights:
            raise ConfigError(
                "The detector has no weights, and what it finds would be random: pass weights=FILE, or train it first "
                "with detector.train(DATA)."
            )

    def save(self, path: str | Path) -> Path:
        """Write weights, config and class names into a file, which `Detector(weights=path)` loads; return the path.

        Raise ConfigError for another ending than .pth and .pt, and EnvironmentProblem if it cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() not in (".pth", ".pt") or path.is_dir():
            raise ConfigError(f"{path} is no file that could be loaded again: name a file that ends with .pth.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentProblem(f"{path} cannot be written ({error.strerror}): name another folder.") from error
        write_weights(
            path, self.model, class_names=self.class_names, config=config_text(self.config), averaged=self.averaged
        )
        return path
