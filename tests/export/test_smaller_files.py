"""Half precision and int8 are refused where they would be something else than what is asked for."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from align_detr.errors import ConfigError, EnvironmentProblem
from align_detr.export.export import require_finite
from align_detr.export.metadata import read_description
from align_detr.export.onnx_file import to_half
from align_detr.export.quantization import quantize, quantized_nodes
from align_detr.projects.tsp.nms import kept_by_nms
from support.onnx_file import described

onnx = pytest.importorskip("onnx", reason="the extra [export] is optional")
pytest.importorskip("onnxruntime", reason="the extra [export] is optional")
pytest.importorskip("onnxscript", reason="the extra [export] is optional")


class Suppression(nn.Module):
    """NMS of boxes of as many classes."""

    def forward(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """Return which boxes (1, N, 4) with scores (1, N) are kept."""
        return kept_by_nms(boxes, scores, torch.arange(boxes.shape[1])[None] // 2, 0.5)


def test_half_precision_is_refused_where_boxes_are_suppressed() -> None:
    """Of 80 classes in 1333 pixels, each class shifted to a place of its own: up to 106,560."""
    box = torch.tensor([0.0, 0.0, 1333.0, 800.0])
    program = torch.onnx.export(
        Suppression().eval(), (box.expand(1, 160, 4), torch.rand(1, 160)), dynamo=True, verbose=False
    )
    with pytest.raises(ConfigError, match="fp16 rounds the boxes that this detector's NMS compares"):
        to_half(program.model_proto)


def convolutions(*scopes: str) -> "onnx.ModelProto":
    """Return a model of 1x1 convolutions in modules of these names, as the exporter notes them."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [helper.make_node("Conv", [f"x{k}", "w"], [f"x{k + 1}"], f"conv{k}") for k in range(len(scopes))]
    for node, scope in zip(nodes, scopes, strict=True):
        helper.set_model_props(node, {"pkg.torch.onnx.name_scopes": f"['', '{scope}']"})
    ends = [helper.make_tensor_value_info(x, kind, [1, 3, 8, 8]) for x in ("x0", f"x{len(scopes)}")]
    weight = helper.make_tensor("w", kind, [3, 3, 1, 1], np.eye(3).flatten())
    return helper.make_model(helper.make_graph(nodes, "convolutions", ends[:1], ends[1:], [weight]))


def test_int8_is_refused_for_a_backbone_of_one_convolution(tmp_path: Path) -> None:
    """onnxruntime would take no node for all nodes, the neck's among them."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    several = [f"model.backbone.{k}" for k in range(4)]
    assert quantized_nodes(convolutions(*several, "model.neck")) == ["conv1", "conv2", "conv3"]
    with pytest.raises(ConfigError, match="that of this DETR has none beyond its first quarter .*leave int8 out"):
        quantize(
            convolutions("model.backbone.patches", "model.neck"), tmp_path, read_description(described(), "a.onnx")
        )


def test_a_file_that_predicts_infinity_is_not_written() -> None:
    boxes, labels = np.zeros((1, 2, 4)), np.zeros((1, 2), np.int64)
    require_finite([boxes, np.array([[0.5, 0.1]]), labels], "fp16")
    with pytest.raises(EnvironmentProblem, match="In fp16, this detector predicts NaN or infinity, so nothing"):
        require_finite([boxes, np.array([[np.nan, 0.1]]), labels], "fp16")
