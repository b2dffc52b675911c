"""Int8 by onnxruntime's static quantisation, calibrated with images that go through the detector's preprocessing."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from align_detr.errors import ConfigError
from align_detr.export.description import size_multiple
from align_detr.export.module import ExportedDetector
from align_detr.export.options import ExportOptions
from align_detr.inference.sources import pictures
from align_detr.inference.views import TestView

MOST = 100  # images of a folder that are looked at, evenly spread
OPERATORS = ["Conv", "MatMul"]
# Parts of module names whose products stay in float: what says where, and what ranks the queries.
KEPT = ("head", "proposals", "class_embed", "bbox_embed", "sampling_offsets", "attention_weights", "query_position")


def quantize(model: Any, folder: Path, module: ExportedDetector, options: ExportOptions, view: TestView) -> Any:
    """Return an ONNX model with 8-bit weights and activations of convolutions and of products with weights.

    Weights have a scale per channel. Products of two activations (attention), the heads, the first stage and the
    modules that place sampling points stay in float. Raise ConfigError for a folder without images.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    images = calibration_images(folder, module, options, view)
    with tempfile.TemporaryDirectory() as temporary:
        plain, prepared, quantized = (Path(temporary) / name for name in ("plain.onnx", "prepared.onnx", "int8.onnx"))
        onnx.save(model, str(plain))
        quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
        excluded = kept_nodes(onnx.load(str(prepared)))
        quantize_static(
            str(prepared),
            str(quantized),
            _Reader(images),
            op_types_to_quantize=OPERATORS,
            nodes_to_exclude=excluded,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(str(quantized))


def kept_nodes(model: Any) -> list[str]:
    """Return the names of the nodes that stay in float: see `quantize`."""
    weights = {x.name for x in model.graph.initializer}
    names = []
    for node in model.graph.node:
        if node.op_type not in OPERATORS:
            continue
        scopes = {x.key: x.value for x in node.metadata_props}.get("pkg.torch.onnx.name_scopes", node.name)
        if not weights.intersection(node.input) or any(part in scopes for part in KEPT):
            names.append(node.name)
    return names


class _Reader:
    """The images as onnxruntime asks for them, one per call, then None."""

    def __init__(self, inputs: Iterator[dict[str, np.ndarray]]) -> None:
        self.inputs = inputs

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next images and sizes."""
        return next(self.inputs, None)

    def __iter__(self) -> "_Reader":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        return next(self.inputs)


def calibration_images(
    folder: Path, module: ExportedDetector, options: ExportOptions, view: TestView
) -> Iterator[dict[str, np.ndarray]]:
    """Return an iterator of the graph's inputs for at most `MOST` images of a folder; raise ConfigError if there are
    none.
    """
    if not folder.is_dir():
        raise ConfigError(f"int8 is {folder}, which is no folder: name one with a hundred images like those to come.")
    found = list(pictures(folder))
    chosen = found[:: max(1, -(-len(found) // MOST))]

    def inputs() -> Iterator[dict[str, np.ndarray]]:
        for picture in chosen:
            pixels = picture.pixels(view.white_level)
            image = fit(pixels, options.size) if options.size else _resized(pixels, view)
            batch, sizes = padded(image, options, size_multiple(module.model))
            if options.normalised:
                mean, std = (x.numpy() for x in (module.model.pixel_mean, module.model.pixel_std))
                order = batch[:, ::-1] if view.image_format == "BGR" else batch
                batch = ((order - mean) / std).astype(np.float32)
            yield {"images": batch, "sizes": sizes}

    return inputs()


def fit(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale RGB pixels (h, w, 3) to the largest image of their aspect inside `size`."""
    height, width = pixels.shape[:2]
    scale = min(size[0] / height, size[1] / width)
    new = (max(1, min(size[1], round(width * scale))), max(1, min(size[0], round(height * scale))))
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(new, Image.Resampling.BILINEAR))


def padded(image: np.ndarray, options: ExportOptions, multiple: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a batch of one RGB image (h, w, 3), padded to the graph's size, and its sizes."""
    height, width = image.shape[:2]
    total = options.size or tuple(-(-n // multiple) * multiple for n in (height, width))
    whole = np.zeros((options.batch or 1, 3, *total), np.uint8)
    whole[:, :, :height, :width] = image.transpose(2, 0, 1)
    return whole, np.repeat(np.array([[height, width]], np.int64), len(whole), axis=0)


def _resized(pixels: np.ndarray, view: TestView) -> np.ndarray:
    """Return RGB pixels (h, w, 3) as the test mapper scales them."""
    (plain,) = TestView(view.augmentations, "RGB", view.white_level).views()
    return plain.image(pixels, "A calibration image").numpy().transpose(1, 2, 0)
