"""Exported files against the detectors they come from: parity, size, time to export, latency, AP.

    python benchmarks/export.py models                      # R50 detectors: file, time, parity (minutes each)
    python benchmarks/export.py latency [--threads 2]        # onnxruntime, OpenVINO and PyTorch, batch 1
    python benchmarks/export.py zoo [--size 192 256]         # every graph of the zoo, shrunk; sizes are free without it

Weights are seeded random ones; a file is compared with its detector before it is written. The extra [export] is needed,
OpenVINO is measured where it is installed, `latency --compiled` needs a C++ compiler. AP: onnx_ap.py.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import instantiate
from torch import Tensor

from align_detr import OnnxDetector, model_zoo
from align_detr.errors import AlignDetrError
from align_detr.export import compiled_file
from align_detr.export.export import export
from align_detr.export.inputs import feed, prepare
from align_detr.export.module import ExportedDetector, detection_copy
from align_detr.export.onnx_file import OnnxRun
from align_detr.export.options import ENDINGS, ExportOptions
from align_detr.export.tracing import shares_alike
from align_detr.inference.classes import Classes
from align_detr.inference.optimized import optimize_for_inference
from align_detr.inference.sources import pictures
from align_detr.inference.views import TestView

MODELS = {
    "DETR": "detr/detr_r50_500ep.py",
    "Deformable-DETR": "deformable_detr/deformable_detr_r50_50ep.py",
    "DINO": "dino/dino_r50_4scale_12ep.py",
    "Align-DINO": "align_detr/align_dino_r50_4scale_12ep.py",
}


def build(name: str) -> Any:
    """Return a detector of the model zoo with seeded random weights, in evaluation mode."""
    torch.manual_seed(0)
    return instantiate(model_zoo.get_config(name).model).eval()


def photos(folder: Path, path: Path) -> list[dict[str, Tensor]]:
    """Return three photos as the inputs of a file of one image per pass."""
    description = OnnxDetector(path).description
    chosen = list(pictures(folder))[:3]
    inputs = [feed([prepare(x.pixels(None), description, x.name)], description) for x in chosen]
    return [{name: torch.from_numpy(value) for name, value in x.items()} for x in inputs]


def models(names: Sequence[str], size: tuple[int, int], folder: Path) -> None:
    """Print file size, time to export and parity on photos of R50 detectors."""
    for name in names:
        model = build(MODELS[name])
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "model.onnx"
            start = time.perf_counter()
            classes, view = Classes([str(k) for k in range(model.num_classes)]), TestView()
            export(path, "onnx", ExportOptions(size, 1), model=model, classes=classes, view=view)
            seconds = time.perf_counter() - start
            found, expected = [], []
            run, module = OnnxRun(str(path)), ExportedDetector(detection_copy(model)).eval()
            for inputs in photos(folder, path):
                found.append(run(**inputs))
                with torch.no_grad():
                    expected.append([x.numpy() for x in module(**inputs)])
            shares = [shares_alike(a, b, pixels=0.05, score=1e-4)[0] for a, b in zip(found, expected, strict=True)]
            scores = max(np.abs(a[1] - b[1]).max() for a, b in zip(found, expected, strict=True))
            print(
                f"{name}: {path.stat().st_size / 1e6:.0f} MB, {seconds:.0f} s, alike {min(shares):.1%}, "
                f"scores within {scores:.1e}",
                flush=True,
            )


def median_ms(run: Callable[[], Any], seconds: float) -> float:
    """Return the median time of a call in milliseconds, after two calls, of at least three."""
    run()
    run()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e3


def latency(
    names: Sequence[str], size: tuple[int, int], threads: int, seconds: float, kept: Path, *, compiled: bool
) -> None:
    """Print the time of one image in each runtime; exported files are kept in a folder for the next run."""
    torch.set_num_threads(threads)
    kept.mkdir(parents=True, exist_ok=True)
    for name in names:
        model = build(MODELS[name])
        path = exported(kept, name, size, model, "onnx")
        images = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
        sizes = torch.tensor([list(size)])
        times: dict[str, float] = {}
        inputs = [{"image": images[0], "height": size[0], "width": size[1]}]
        optimized = optimize_for_inference(model)
        with torch.no_grad():
            times["eager"] = median_ms(lambda m=model, x=inputs: m(x), seconds)
        times["optimized"] = median_ms(lambda m=optimized, x=inputs: m(x), seconds)
        session = OnnxRun(str(path), threads)
        times["onnxruntime"] = median_ms(lambda s=session, x=images, y=sizes: s(x, y), seconds)
        times.update(_openvino(path, images, sizes, threads, seconds))
        if compiled:
            program = compiled_file.load(exported(kept, name, size, model, "compiled"))
            with torch.no_grad():
                times["compiled"] = median_ms(lambda p=program, x=images, y=sizes: p(x, y), seconds)
        print(f"{name} {size[0]}x{size[1]}: " + ", ".join(f"{k} {v:.0f} ms" for k, v in times.items()), flush=True)


def exported(kept: Path, name: str, size: tuple[int, int], model: Any, file_format: str) -> Path:
    """Return the file of a detector with a fixed size, written unless it is there."""
    path = kept / f"{name}_{size[0]}x{size[1]}{ENDINGS[file_format]}"
    if not path.is_file():
        classes, start = Classes([str(k) for k in range(model.num_classes)]), time.perf_counter()
        export(path, file_format, ExportOptions(size, 1), model=model, classes=classes, view=TestView())
        print(f"{path}: {path.stat().st_size / 1e6:.0f} MB, {time.perf_counter() - start:.0f} s", flush=True)
    return path


def _openvino(path: Path, images: Tensor, sizes: Tensor, threads: int, seconds: float) -> dict[str, float]:
    """Return OpenVINO's time, or nothing where it is not installed."""
    try:
        import openvino
    except ImportError:
        return {}
    try:
        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        compiled = openvino.Core().compile_model(str(path), "CPU", settings)
        inputs = {"images": images.numpy(), "sizes": sizes.numpy()}
        return {"OpenVINO": median_ms(lambda: compiled(inputs), seconds)}
    except Exception as error:
        print(f"OpenVINO: {type(error).__name__}: {str(error).splitlines()[0]}")
        return {}


def zoo(names: Sequence[str], options: ExportOptions) -> None:
    """Export each graph of the model zoo, shrunk, and print what came of it.

    Configs that differ in sizes alone, or in what only training reads, have one graph. `names` are some configs in
    place of one per graph.
    """
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from support.graphs import GRAPHS
    from support.subject import subject

    for name in names or GRAPHS:
        model = subject(name).model.eval()
        classes, start = Classes([str(k) for k in range(model.num_classes)]), time.process_time()
        with tempfile.TemporaryDirectory() as temporary:
            try:
                path = Path(temporary) / "model.onnx"
                export(path, "onnx", options, model=model, classes=classes, view=TestView())
                result = f"{path.stat().st_size / 1e6:.1f} MB"
            except AlignDetrError as error:
                result = str(error)
        print(f"{name} ({type(model).__name__}): {result}, {time.process_time() - start:.0f} s", flush=True)


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("models", "latency", "zoo"))
    parser.add_argument("--names", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--size", type=int, nargs=2, help="480 640 if left out; of the zoo, free with a free batch")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0, help="per measurement of latency")
    parser.add_argument("--folder", type=Path, default=Path("datasets/bccd/images"), help="photos for parity")
    parser.add_argument("--kept", type=Path, default=Path("output/export"), help="folder for exported files")
    parser.add_argument("--compiled", action="store_true", help="latency: also of PyTorch's ahead-of-time compiler")
    parser.add_argument("--configs", nargs="+", default=[], metavar="NAME", help="zoo: of these alone")
    args = parser.parse_args()
    size = (args.size[0], args.size[1]) if args.size else (480, 640)
    if args.what == "models":
        models(args.names, size, args.folder)
    elif args.what == "latency":
        latency(args.names, size, args.threads, args.seconds, args.kept, compiled=args.compiled)
    else:
        zoo(args.configs, ExportOptions(size, 1) if args.size else ExportOptions(None, None))


if __name__ == "__main__":
    main()
