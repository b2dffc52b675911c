"""`align-detr demo`: train a small detector on data that comes along, evaluate it and draw its detections."""

import argparse
import json
import logging
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align_detr.cli.requirements import require_detectron2
from align_detr.errors import DatasetError
from align_detr.paths import SMALL_DATA_REMEDY, data_path

if TYPE_CHECKING:
    from omegaconf import DictConfig

logger = logging.getLogger(__name__)

WEIGHTS = "weights.pth"
"""The evaluated weights alone, which training leaves in its output folder."""
CONFIGS = {"bccd": "quickstart/demo.py", "digits": "quickstart/digits_dense.py"}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command; it needs neither torch nor detectron2."""
    parser = argparse.ArgumentParser(prog="align-detr demo", description=__doc__)
    parser.add_argument(
        "--data",
        choices=list(CONFIGS),
        default="bccd",
        help="bccd (default): photos of blood cells, with a pretrained backbone, both from the checkout; digits: made "
        "on the spot and trained from scratch, without any file",
    )
    parser.add_argument("--config-file", metavar="NAME", help="path or model-zoo name, in place of the data's config")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="values of the config, e.g. train.max_iter=100"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; its last line reads `demo: AP=... AP50=... minutes=... figures=...`."""
    args = build_parser().parse_intermixed_args(argv)
    require_detectron2()
    _require_photos(args.data if args.config_file is None else None)

    # imported here, as all that needs torch: `--help` works without it
    from align_detr.data import count_images
    from align_detr.engine.run import train
    from align_detr.engine.start import set_up
    from align_detr.lazy_config import load_config

    cfg = load_config(args.config_file or CONFIGS[args.data], args.overrides)
    folder = Path(cfg.train.output_dir)
    set_up(cfg.train)
    for split in ("train", "test"):
        count_images(cfg.dataloader[split].dataset)  # images are made at first use: before the clock starts
    start = time.perf_counter()
    results = train(cfg, overwrite=True)["bbox"]  # the curves show this run only
    minutes = (time.perf_counter() - start) / 60
    photos = held_out(cfg, count=12)
    figures = draw(cfg, photos, folder)
    first, last = loss_range(folder / "metrics.json")
    print(f"demo: training loss {first:.2f} at the start, {last:.2f} at the end")
    print(table(results))
    print(f"demo: the trained detector is {folder / WEIGHTS}; try it:")
    print(f"  {predict_command(photos[0]['file_name'], folder)}")
    print(f"demo: AP={results['AP']:.1f} AP50={results['AP50']:.1f} minutes={minutes:.1f} figures={figures}")
    return 0


def _require_photos(data: str | None) -> None:
    """Raise DatasetError if `data` is the photos and there are none, as in an installed package."""
    if data == "bccd" and not data_path("bccd").is_dir():
        raise DatasetError(
            f"There are no photos of blood cells: use --data digits, which needs no file, or {SMALL_DATA_REMEDY}."
        )


def table(results: Mapping[str, float]) -> str:
    """Return COCO's AP of all classes and of each as a table."""
    from tabulate import tabulate

    names = ["AP", "AP50", "AP75", *(name for name in results if name.startswith("AP-"))]
    heads = [name.removeprefix("AP-") if name.startswith("AP-") else name for name in names]
    return tabulate([[results[name] for name in names]], headers=heads, floatfmt=".1f")


def predict_command(photo: str, folder: Path) -> str:
    """Return the command that finds objects in `photo` with the weights in `folder`."""
    beside = Path(sys.executable).with_name("align-detr")
    program = _from_here(beside) if beside.is_file() else "align-detr"
    out = folder / "predictions"
    return shlex.join(
        [program, "predict", _from_here(Path(photo)), "--weights", str(folder / WEIGHTS), "--out", str(out)]
    )


def _from_here(path: Path) -> str:
    """Return a path relative to the working directory if it lies there."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def draw(cfg: "DictConfig", photos: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Write predictions.png, of `photos` (see `held_out`), and curves.png into `folder`/figures; return that folder."""
    from detectron2.data import MetadataCatalog

    from align_detr.engine.trained import load_trained
    from align_detr.evaluation.figures import draw_curves, draw_detections

    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    names = MetadataCatalog.get(cfg.dataloader.test.dataset).thing_classes
    model, _ = load_trained(cfg)
    draw_detections(model, photos, names, figures / "predictions.png")
    draw_curves(folder / "metrics.json", figures / "curves.png")
    return figures


def held_out(cfg: "DictConfig", count: int) -> list[dict[str, Any]]:
    """Return the first `count` test images as inputs of the model, with `truth`: (absolute xyxy box, class) pairs in
    pixels of the image.
    """
    import numpy as np
    from detectron2.config import instantiate
    from detectron2.structures import BoxMode

    from align_detr.data import load_dataset

    mapper = instantiate(cfg.dataloader.test.mapper)
    records = []
    for record in load_dataset(cfg.dataloader.test.dataset)[:count]:
        mapped = mapper(record)
        height, width = mapped["image"].shape[-2:]
        scale = np.tile([width / record["width"], height / record["height"]], 2)
        boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) * scale for a in record["annotations"]]
        truth = list(zip(boxes, (a["category_id"] for a in record["annotations"]), strict=True))
        records.append({**mapped, "height": height, "width": width, "truth": truth})
    return records


def loss_range(metrics_file: Path) -> tuple[float, float]:
    """Return the first and the last total loss that a run logged."""
    rows = [json.loads(line) for line in metrics_file.read_text().splitlines()]
    losses = [row["total_loss"] for row in rows if row.get("total_loss") is not None]
    return losses[0], losses[-1]
