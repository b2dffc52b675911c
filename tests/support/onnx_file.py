"""An exported file made by hand, whose outputs a reader can compute, and descriptions of such files."""

import json
from pathlib import Path
from typing import Any

DESCRIPTION = {
    "format": 1,
    "version": "0.1.0",
    "architecture": "DETR",
    "class_names": ["red", "blue"],
    "category_ids": [7, 9],
    "input": "uint8",
    "channels": "RGB",
    "pixel_mean": [100.0, 110.0, 120.0],
    "pixel_std": [50.0, 55.0, 60.0],
    "size": None,
    "size_multiple": 1,
    "batch": None,
    "resize": {"short_edge": 8, "max_size": 16},
    "num_detections": 2,
    "precision": "fp32",
}


def described(**changes: Any) -> dict[str, str]:
    """Return a file's metadata with changes of the description."""
    return {"align_detr": json.dumps({**DESCRIPTION, **changes})}


def write_onnx(path: Path, metadata: dict[str, str] | None = None, outputs: tuple[str, ...] = ()) -> Path:
    """Write a detector of two boxes per image: the whole image of class 0, whose score is the mean of the first channel
    over 255, and its upper left quarter of class 1, of the third channel. Both are means over the padding, too.
    """
    import onnx
    from onnx import TensorProto as T
    from onnx import helper as h

    metadata = described() if metadata is None else metadata
    normalised = json.loads(metadata.get("align_detr", "{}")).get("input") == "normalised"
    names = outputs or ("boxes", "scores", "labels")
    numbers = {
        "first_and_third": (T.INT64, [2], [0, 2]),
        "axes": (T.INT64, [2], [2, 3]),
        "white": (T.FLOAT, [], [255.0]),
        "sides": (T.INT64, [4], [1, 0, 1, 0]),
        "one": (T.INT64, [1], [1]),
        "parts": (T.FLOAT, [1, 2, 4], [0, 0, 1, 1, 0, 0, 0.5, 0.5]),
        "zero": (T.FLOAT, [], [0.0]),
        "classes": (T.INT64, [2], [0, 1]),
    }
    nodes = [
        h.make_node("Cast", ["images"], ["x"], to=T.FLOAT),
        h.make_node("ReduceMean", ["x", "axes"], ["means"], keepdims=0),
        h.make_node("Gather", ["means", "first_and_third"], ["two"], axis=1),
        h.make_node("Div", ["two", "white"], [names[1]]),
        h.make_node("Gather", ["sizes", "sides"], ["whole"], axis=1),
        h.make_node("Cast", ["whole"], ["corners"], to=T.FLOAT),
        h.make_node("Unsqueeze", ["corners", "one"], ["of_image"]),
        h.make_node("Mul", ["of_image", "parts"], [names[0]]),
        h.make_node("Mul", ["two", "zero"], ["zeros"]),
        h.make_node("Cast", ["zeros"], ["no_class"], to=T.INT64),
        h.make_node("Add", ["no_class", "classes"], [names[2]]),
    ]
    graph = h.make_graph(
        nodes,
        "by_hand",
        [
            h.make_tensor_value_info("images", T.FLOAT if normalised else T.UINT8, ["B", 3, "H", "W"]),
            h.make_tensor_value_info("sizes", T.INT64, ["B", 2]),
        ],
        [
            h.make_tensor_value_info(names[0], T.FLOAT, ["B", 2, 4]),
            h.make_tensor_value_info(names[1], T.FLOAT, ["B", 2]),
            h.make_tensor_value_info(names[2], T.INT64, ["B", 2]),
        ],
        [h.make_tensor(name, *value) for name, value in numbers.items()],
    )
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 18)], ir_version=10)
    h.set_model_props(model, metadata)
    onnx.save(model, str(path))
    return path
