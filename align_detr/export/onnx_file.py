"""ONNX files: translated, described, checked and written."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from align_detr.errors import ConfigError, EnvironmentProblem
from align_detr.export.metadata import INPUTS, KEY, OUTPUTS
from align_detr.export.options import ExportOptions
from align_detr.export.tracing import quiet

OPSET = 20  # GridSample in its present form
LARGEST = 2**31 - 1  # bytes of a protocol buffer
_GRAPH, _GRAPHS = 5, 10  # AttributeProto's types of attributes that hold graphs


def translate(program: ExportedProgram, options: ExportOptions) -> Any:
    """Return the ONNX model of a graph, with constants folded.

    Raise EnvironmentProblem, with the exporter's reason, for an operator that it does not know.
    """
    from onnxscript import optimizer

    with torch.no_grad(), quiet():
        try:
            translated: Any = torch.onnx.export(
                program,
                dynamo=True,
                input_names=list(INPUTS),
                output_names=list(OUTPUTS),
                opset_version=OPSET,
                optimize=False,  # its rewriting rules take most of the time and change little: see `simplify`
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise EnvironmentProblem(
                f"PyTorch {torch.__version__} cannot write this detector as ONNX ({_innermost(error)}): export with "
                "format torch."
            ) from error
        if options.simplify:
            translated.optimize()
        else:
            optimizer.fold_constants(translated.model)
            optimizer.remove_unused_nodes(translated.model)
    return _name_dimensions(translated.model_proto)


def _innermost(error: BaseException) -> str:
    """Return the first line of the error behind all others."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).splitlines()[0][:200]}".rstrip(".")


def _name_dimensions(model: Any) -> Any:
    """Name the free dimensions of a model's inputs and outputs batch, height and width."""
    names: dict[str, str] = {}
    for dimension, name in zip(
        model.graph.input[0].type.tensor_type.shape.dim, ("batch", "", "height", "width"), strict=True
    ):
        if dimension.dim_param:
            names[dimension.dim_param] = name
    for value in [*model.graph.input, *model.graph.output]:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_param = names.get(dimension.dim_param, dimension.dim_param)
    del model.graph.value_info[:]  # which has the old names, and expressions of them
    return model


def add_description(model: Any, text: str) -> None:
    """Write a description into a model's metadata, and its producer; remove the exporter's notes."""
    from align_detr import __version__

    _remove_notes(model.graph)
    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, text
    model.producer_name, model.producer_version = "align_detr", __version__


def _remove_notes(graph: Any) -> None:
    """Remove what the exporter notes on a graph and its parts, which takes megabytes: modules, constraints, sources."""
    del graph.metadata_props[:]
    for part in [*graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info]:
        del part.metadata_props[:]
    for node in graph.node:
        node.doc_string = ""
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs] if attribute.type in (_GRAPH, _GRAPHS) else []:
                _remove_notes(inner)


def to_half(model: Any) -> Any:
    """Return a model with weights and arithmetic in float16, but for positions, which need more, and the outputs.

    Raise ConfigError for one with NMS, whose boxes, in pixels and shifted by their class, float16 rounds by pixels.
    """
    if any(node.op_type == "NonMaxSuppression" for node in model.graph.node):
        raise ConfigError(
            "fp16 rounds the boxes that this detector's NMS compares, by pixels and beyond 65504 to infinity: leave it "
            "out."
        )
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    return convert_float_to_float16(
        model, keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, "GridSample", "Sin", "Cos", "TopK"]
    )


class OnnxRun:
    """A model in onnxruntime, on the CPU: images and sizes in, arrays out."""

    def __init__(self, model: Any, threads: int | None = None) -> None:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        settings.intra_op_num_threads = threads or torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])

    def __call__(self, images: Tensor, sizes: Tensor) -> Sequence[np.ndarray]:
        """Return boxes, scores and labels."""
        return self.session.run(list(OUTPUTS), {"images": images.numpy(), "sizes": sizes.numpy()})


def write(model: Any, path: Path) -> None:
    """Write a model into one file, as a whole or not at all. Raise ConfigError for one that is too large for that, and
    EnvironmentProblem if it cannot be written.
    """
    if model.ByteSize() > LARGEST:
        raise ConfigError(
            f"The model takes {model.ByteSize() / 2**30:.1f} GB, but an ONNX file holds 2 GB: export with fp16."
        )
    write_whole(path, model.SerializeToString())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file as a whole or not at all. Raise EnvironmentProblem if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            written = Path(file.name)
            try:
                file.write(content)
                file.close()
                written.chmod(0o644)
                written.replace(path)
            except BaseException:
                written.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise EnvironmentProblem(f"{path} cannot be written ({error.strerror}): name another folder.") from error
