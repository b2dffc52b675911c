"""Int8 by onnxruntime's static quantisation, calibrated with images that go through the detector's preprocessing."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from align_detr.errors import ConfigError
from align_detr.export.inputs import feed, prepare
from align_detr.export.metadata import Description
from align_detr.inference.sources import pictures

MOST = 100  # images of a folder that are looked at, evenly spread
EARLY = 4  # of the backbone's convolutions, the first of so many parts stays in float: it loses most


def quantize(model: Any, folder: Path, description: Description) -> Any:
    """Return an ONNX model with 8-bit weights, with a scale per channel, and activations in the backbone.

    The backbone's first quarter, its depth-wise convolutions and all that follows the backbone stay in float. Raise
    ConfigError where nothing of the backbone is left, and DatasetError as `calibration_inputs`.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    nodes = quantized_nodes(model)
    if not nodes:  # which would stand for all
        raise ConfigError(
            f"int8 is for the convolutions of a backbone, and that of this {description.architecture} has none beyond "
            "its first quarter and the depth-wise ones: leave int8 out."
        )
    reader = _Reader(calibration_inputs(folder, description))
    with tempfile.TemporaryDirectory() as temporary:
        plain, prepared, quantized = (Path(temporary) / name for name in ("plain.onnx", "prepared.onnx", "int8.onnx"))
        onnx.save(model, str(plain))
        quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(quantized),
            reader,
            op_types_to_quantize=["Conv"],
            nodes_to_quantize=nodes,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(str(quantized))


def quantized_nodes(model: Any) -> list[str]:
    """Return the names of the convolutions that get 8 bits: see `quantize`."""
    convolutions = [node for node in model.graph.node if node.op_type == "Conv" and "backbone" in _module_of(node)]
    return [node.name for node in convolutions[-(-len(convolutions) // EARLY) :] if _groups(node) == 1]


def _module_of(node: Any) -> str:
    """Return the names of the modules around a node, as the exporter notes them."""
    return {entry.key: entry.value for entry in node.metadata_props}.get("pkg.torch.onnx.name_scopes", "")


def _groups(node: Any) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "group"), 1)


class _Reader:
    """The inputs as onnxruntime asks for them: the next in each call, then None."""

    def __init__(self, inputs: Iterator[dict[str, np.ndarray]]) -> None:
        self.inputs = inputs

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next images and sizes."""
        return next(self.inputs, None)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self.inputs

    def __next__(self) -> dict[str, np.ndarray]:
        return next(self.inputs)


def calibration_inputs(folder: Path, description: Description) -> Iterator[dict[str, np.ndarray]]:
    """Return an iterator of the file's inputs for at most `MOST` images of a folder.

    Raise DatasetError for a folder without images.
    """
    found = list(pictures(folder))
    chosen = found[:: max(1, -(-len(found) // MOST))]
    return (feed([prepare(x.pixels(description.white_level), description, x.name)], description) for x in chosen)
