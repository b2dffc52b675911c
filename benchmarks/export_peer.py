"""transformers' DETR and Deformable-DETR as ONNX files, by the way that its documentation recommends, and their time.

    python benchmarks/export_peer.py detr --out output/export/peer [--size 480 640] [--threads 2]

The documentation's way is Optimum (`pip install optimum-onnx`, which needs transformers below 5; a virtual environment
of its own). Where Optimum does not know a detector, PyTorch's exporter is used, with the size of the example. Random
weights, batch 1. The files have neither normalisation nor post-processing, unlike ours.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

NAMES = {"detr": ("Detr", 100, ["stage4"]), "deformable": ("DeformableDetr", 300, ["stage2", "stage3", "stage4"])}


def build(name: str) -> Any:
    """Return the detector with a ResNet-50 of transformers, in evaluation mode."""
    kind, queries, stages = NAMES[name]
    backbone = transformers.ResNetConfig(layer_type="bottleneck", out_features=stages)
    options: dict[str, Any] = {"backbone_config": backbone, "num_queries": queries, "num_labels": 80}
    if int(transformers.__version__.split(".")[0]) < 5:
        options.update(use_timm_backbone=False, use_pretrained_backbone=False, backbone=None)
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**options)
    return getattr(transformers, f"{kind}ForObjectDetection")(config).eval()


class Tensors(torch.nn.Module):
    """The detector with tensors as outputs."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits and boxes."""
        found = self.model(pixel_values=pixel_values)
        return found.logits, found.pred_boxes


def export(name: str, model: Any, folder: Path, size: tuple[int, int]) -> tuple[Path, str]:
    """Write the file; return its path and who wrote it."""
    path = folder / name / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        from optimum.exporters.onnx import onnx_export_from_model
    except ImportError as error:
        print(f"Optimum: {error}")
    else:
        try:
            onnx_export_from_model(model, path.parent, task="object-detection", do_validation=False)
            return path, "Optimum"
        except Exception as error:  # Optimum raises errors of many kinds
            print(f"Optimum: {type(error).__name__}: {str(error).splitlines()[0][:200]}")
    torch.onnx.export(
        Tensors(model),
        (torch.rand(1, 3, *size),),
        str(path),
        dynamo=True,
        input_names=["pixel_values"],
        output_names=["logits", "pred_boxes"],
        external_data=False,
    )
    return path, "torch.onnx.export"


def main() -> None:
    """Export and measure a detector."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(NAMES))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--reuse", action="store_true", help="measure the file that is there")
    args = parser.parse_args()
    path, writer = args.out / args.name / "model.onnx", "an earlier run"
    if not (args.reuse and path.is_file()):
        start = time.perf_counter()
        path, writer = export(args.name, build(args.name), args.out, (args.size[0], args.size[1]))
        print(f"{writer}: {path.stat().st_size / 1e6:.0f} MB, {time.perf_counter() - start:.0f} s", flush=True)
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = args.threads
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    inputs = {"pixel_values": np.random.default_rng(0).random((1, 3, *args.size), np.float32)}
    if "pixel_mask" in {x.name for x in session.get_inputs()}:
        inputs["pixel_mask"] = np.ones((1, *args.size), np.int64)
    times: list[float] = []
    end = time.perf_counter() + args.seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        session.run(None, inputs)
        times.append(time.perf_counter() - start)
    print(f"transformers {transformers.__version__}, {args.name}, {writer}: {np.median(times[2:]) * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
