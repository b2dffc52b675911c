"""`align-detr demo`: train a small detector on the built-in digits, evaluate it and draw its detections."""

import argparse
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; its last line reads `demo: AP=... AP50=... minutes=... figures=...`."""
    parser = argparse.ArgumentParser(prog="align-detr demo", description=__doc__)
    parser.add_argument("--config-file", default="quickstart/digits.py", help="path or model-zoo name")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="values of the config, e.g. train.max_iter=100"
    )
    args = parser.parse_args(argv)

    # imported here, as all that needs torch: `--help` works without it
    from align_detr.data import count_images
    from align_detr.engine.run import train
    from align_detr.engine.start import set_up
    from align_detr.lazy_config import load_config

    cfg = load_config(args.config_file, args.overrides)
    folder = Path(cfg.train.output_dir)
    set_up(cfg.train)
    for split in ("train", "test"):
        count_images(cfg.dataloader[split].dataset)  # images are made at first use: before the clock starts
    start = time.perf_counter()
    results = train(cfg, overwrite=True)["bbox"]  # the curves show this run only
    minutes = (time.perf_counter() - start) / 60
    figures = draw(cfg, folder)
    first, last = loss_range(folder / "metrics.json")
    print(f"demo: training loss {first:.2f} at the start, {last:.2f} at the end")
    print(f"demo: AP={results['AP']:.1f} AP50={results['AP50']:.1f} minutes={minutes:.1f} figures={figures}")
    return 0


def draw(cfg: "DictConfig", folder: Path) -> Path:
    """Write predictions.png and curves.png into `folder`/figures; return that folder."""
    from detectron2.data import MetadataCatalog

    from align_detr.engine.trained import load_trained
    from align_detr.evaluation.figures import draw_curves, draw_detections

    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    names = MetadataCatalog.get(cfg.dataloader.test.dataset).thing_classes
    model, _ = load_trained(cfg)
    draw_detections(model, held_out(cfg, count=18), names, figures / "predictions.png")
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
