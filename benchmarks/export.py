"""Exported files against the detectors they come from: parity, size, time to export, latency, AP.

    python benchmarks/export.py models                      # R50 detectors: file, time, parity (minutes each)
    python benchmarks/export.py latency [--threads 2]        # onnxruntime, OpenVINO and PyTorch, batch 1
    python benchmarks/export.py bccd --weights weights.pth   # AP of fp32, fp16 and int8 on the blood cells

Weights are seeded random ones unless a file is named. The extra [export] is needed.
"""

import argparse
import contextlib
import io
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import instantiate
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from align_detr import Detector, model_zoo
from align_detr.export.export import export
from align_detr.export.module import ExportedDetector, detection_copy
from align_detr.export.onnx_file import OnnxRun
from align_detr.export.options import ExportOptions
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
BCCD = Path("datasets/bccd")


def build(name: str) -> Any:
    """Return a detector of the model zoo with seeded random weights, in evaluation mode."""
    torch.manual_seed(0)
    return instantiate(model_zoo.get_config(name).model).eval()


def photos(folder: Path, count: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return a batch of real photos scaled into `size`, with padding, and their sizes."""
    from align_detr.export.quantization import fit

    images, sizes = torch.zeros(count, 3, *size, dtype=torch.uint8), []
    for i, picture in zip(range(count), pictures(folder), strict=False):
        pixels = fit(picture.pixels(None), size)
        images[i, :, : pixels.shape[0], : pixels.shape[1]] = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
        sizes.append(pixels.shape[:2])
    return images, torch.tensor(sizes)


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
            images, sizes = photos(folder, 3, size)
            for i in range(3):
                found.append(run(images[i : i + 1], sizes[i : i + 1]))
                with torch.no_grad():
                    expected.append([x.numpy() for x in module(images[i : i + 1], sizes[i : i + 1])])
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


def latency(names: Sequence[str], size: tuple[int, int], threads: int, seconds: float, kept: Path) -> None:
    """Print the time of one image in each runtime; exported files are kept in a folder for the next run."""
    torch.set_num_threads(threads)
    kept.mkdir(parents=True, exist_ok=True)
    for name in names:
        model = build(MODELS[name])
        path = kept / f"{name}_{size[0]}x{size[1]}.onnx"
        if not path.is_file():
            classes = Classes([str(k) for k in range(model.num_classes)])
            export(path, "onnx", ExportOptions(size, 1), model=model, classes=classes, view=TestView())
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
        print(f"{name} {size[0]}x{size[1]}: " + ", ".join(f"{k} {v:.0f} ms" for k, v in times.items()), flush=True)


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


def bccd(weights: Path, split: str, kept: Path) -> None:
    """Print AP on the blood cells through PyTorch and through files of each precision, with free sizes."""
    kept.mkdir(parents=True, exist_ok=True)
    detector = Detector(weights=weights, device="cpu")
    truth = json.loads((BCCD / f"instances_{split}.json").read_text())
    images = sorted(truth["images"], key=lambda x: x["id"])
    train = json.loads((BCCD / "instances_train.json").read_text())
    (kept / "calibration").mkdir(exist_ok=True)
    for image in train["images"]:
        link = kept / "calibration" / Path(image["file_name"]).name
        if not link.exists():
            link.symlink_to((BCCD / "images" / image["file_name"]).resolve())
    ids = sorted(c["id"] for c in truth["categories"])
    (view,) = detector.test_view.views()

    def evaluate(detect: Callable[[np.ndarray, tuple[int, int]], Sequence[np.ndarray]]) -> float:
        results = []
        for image, picture in zip(images, pictures([BCCD / "images" / x["file_name"] for x in images]), strict=True):
            pixels = picture.pixels(None)
            for box, score, label in zip(*detect(pixels, pixels.shape[:2]), strict=True):
                x0, y0, x1, y1 = map(float, box)
                results.append(
                    {
                        "image_id": image["id"],
                        "category_id": ids[int(label)],
                        "score": float(score),
                        "bbox": [x0, y0, x1 - x0, y1 - y0],
                    }
                )
        return ap(BCCD / f"instances_{split}.json", results)

    def eager(pixels: np.ndarray, size: tuple[int, int]) -> Sequence[np.ndarray]:
        found = detector.predict(pixels)
        return found.pred_boxes.tensor.numpy(), found.scores.numpy(), found.pred_classes.numpy()

    def through(run: OnnxRun) -> Callable[[np.ndarray, tuple[int, int]], Sequence[np.ndarray]]:
        def detect(pixels: np.ndarray, size: tuple[int, int]) -> Sequence[np.ndarray]:
            image = view.image(pixels, "An image")
            boxes, scores, labels = (x[0] for x in run(image[None], torch.tensor([list(image.shape[1:])])))
            factor = np.array([size[1] / image.shape[2], size[0] / image.shape[1]] * 2, np.float32)
            return boxes * factor, scores, labels

        return detect

    print(f"PyTorch: AP {evaluate(eager):.2f}", flush=True)
    for name, options in {"fp32": {}, "fp16": {"fp16": True}, "int8": {"int8": kept / "calibration"}}.items():
        path = kept / f"{name}.onnx"
        detector.export(path, size="dynamic", **options)
        start = time.perf_counter()
        value = evaluate(through(OnnxRun(str(path))))
        print(
            f"{name}: AP {value:.2f}, {path.stat().st_size / 1e6:.1f} MB, {time.perf_counter() - start:.1f} s",
            flush=True,
        )


def ap(annotations: Path, results: list[dict[str, Any]]) -> float:
    """Return COCO's AP in percent."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]) * 100


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("models", "latency", "bccd"))
    parser.add_argument("--names", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--size", type=int, nargs=2, default=(640, 640))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0, help="per measurement of latency")
    parser.add_argument("--weights", type=Path, help="of a detector of the blood cells")
    parser.add_argument("--split", default="test")
    parser.add_argument("--folder", type=Path, default=BCCD / "images", help="photos for parity")
    parser.add_argument("--kept", type=Path, default=Path("output/export"), help="folder for exported files")
    args = parser.parse_args()
    size = (args.size[0], args.size[1])
    if args.what == "models":
        models(args.names, size, args.folder)
    elif args.what == "latency":
        latency(args.names, size, args.threads, args.seconds, args.kept)
    else:
        bccd(args.weights, args.split, args.kept)


if __name__ == "__main__":
    main()
