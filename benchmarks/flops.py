"""Parameters and multiply-adds of every full-size detector beside the published numbers.

    python benchmarks/flops.py [config ...]

The papers average over the first 100 images of COCO val2017, resized to 800/1333. Here the sizes are those of the 48
val2017 images of coco_mini where that folder is present, else 640x480. DINO's paper states no size; its two figures fit
800x1280, so DINO and the detectors built on it are counted at that size.

The count follows the papers: convolutions, linear layers, norms and matrix products, one per multiply-add, for a batch
of one image; and deformable attention's samples with their weighted sum, 5 per point and channel (1 % of DINO with 4
scales). Proposals classify every token and compute boxes of the selected ones; released code computes all (1 % more).
"""

import json
import math
import sys
from collections import Counter
from typing import Any

import torch
from detectron2.config import instantiate
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn

from align_detr import model_zoo
from align_detr.data import data_path
from align_detr.modeling.meta_arch import DETR

# Config: published parameters (millions) and multiply-adds (10^9); the official DETRs have 91 classes.
PUBLISHED = {
    "detr/detr_r50_500ep.py": (41, 86),
    "detr/detr_r50_dc5_500ep.py": (41, 187),
    "detr/detr_r101_500ep.py": (60, 152),
    "detr/detr_r101_dc5_500ep.py": (60, 253),
    "conditional_detr/conditional_detr_r50_50ep.py": (44, 90),
    "conditional_detr/conditional_detr_r101_50ep.py": (63, 156),
    "conditional_detr/conditional_detr_r50_dc5_50ep.py": (44, 195),
    "conditional_detr/conditional_detr_r101_dc5_50ep.py": (63, 262),
    "dab_detr/dab_detr_r50_50ep.py": (44, 94),
    "dab_detr/dab_detr_r101_50ep.py": (63, 174),
    "dab_detr/dab_detr_r50_dc5_50ep.py": (44, 202),
    "dab_detr/dab_detr_r101_dc5_50ep.py": (63, 282),
    "dn_detr/dn_detr_r50_50ep.py": (44, 94),
    "dn_detr/dn_detr_r101_50ep.py": (63, 174),
    "dn_detr/dn_detr_r50_dc5_50ep.py": (44, 202),
    "dn_detr/dn_detr_r101_dc5_50ep.py": (63, 282),
    "align_detr/align_dab_detr_r50_50ep.py": (42, 94),
    "align_detr/align_dab_detr_r101_50ep.py": (61, 174),
    "align_detr/align_dab_detr_r50_dc5_50ep.py": (42, 200),
    "align_detr/align_dab_detr_r101_dc5_50ep.py": (61, 280),
    "AnchorDETR/anchor_detr_r50_50ep.py": (39, "-"),
    "AnchorDETR/anchor_detr_r101_50ep.py": (58, "-"),
    "AnchorDETR/anchor_detr_r50_dc5_50ep.py": (39, 151),
    "AnchorDETR/anchor_detr_r101_dc5_50ep.py": (58, "-"),
    "SMCA/smca_multi_scale_r50_50ep.py": (40, 152),
    "deformable_detr/deformable_detr_r50_50ep.py": (40, 173),
    "deformable_detr/deformable_detr_r50_two_stage_50ep.py": (41, 173),
    "h_deformable_detr/h_deformable_detr_r50_12ep.py": ("-", 234),
    "dn_deformable_detr/dn_deformable_detr_r50_50ep.py": (47, "-"),
    "dino/dino_r50_4scale_12ep.py": (47, 279),
    "dino/dino_r50_5scale_12ep.py": ("-", 860),
    "align_detr/align_dino_r50_4scale_12ep.py": (47, 279),
    "group_detr/group_dino_r50_4scale_12ep.py": (47, "-"),
    "TSP/tsp_fcos_r50_36ep.py": ("-", 189),
    "TSP/tsp_fcos_r101_36ep.py": ("-", 255),
    "TSP/tsp_rcnn_r50_36ep.py": ("-", 188),
    "TSP/tsp_rcnn_r101_36ep.py": ("-", 254),
    "FasterRCNN/faster_rcnn_r50_fpn_36ep.py": ("-", 180),
}
# Detectors whose published figure is for one size instead of an average.
ONE_SIZE = {config: (800, 1280) for config in PUBLISHED if "dino_" in config}


class Network(nn.Module):
    """The counted part of a detector: image to predictions, without the conversion to boxes in pixels."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and boxes of the last row for an image (3, h, w)."""
        memory = self.detector.encoder(self.detector.extract_features([self.detector.normalize(image)]))
        predictions = self.detector.predict(memory)["main"]
        return predictions.logits[-1], predictions.boxes[-1]


class Detections(Network):
    """A whole detector of another family: image to detections.

    Non-maximum suppression, pooling of regions and decoding of boxes have no matrix products and count nothing.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__(detector)
        for name, layer in detector.named_modules():
            if name.endswith("rpn_head.anchor_deltas"):  # of untrained boxes, NMS would leave one or two
                nn.init.zeros_(layer.weight)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes and scores for an image (3, h, w)."""
        found = self.detector([{"image": image}])[0]["instances"]
        return found.pred_boxes.tensor, found.scores


def attention_flops(inputs: list[Any], outputs: list[Any]) -> Counter:
    """Count both matrix products of scaled dot-product attention."""
    query, key, value = (x.type().sizes() for x in inputs[:3])
    batch, heads, length, width = query
    return Counter({"attention": batch * heads * length * key[2] * (width + value[3])})


def sampling_flops(inputs: list[Any], outputs: list[Any]) -> Counter:
    """Count bilinear samples and their weighted sum: 5 per point and channel (Deformable-DETR, appendix A.1)."""
    value, weights = (inputs[i].type().sizes() for i in (0, 3))
    return Counter({"deformable_attention": 5 * math.prod(weights) * value[3]})


def count_flops(network: nn.Module, size: tuple[int, int]) -> float:
    """Return the multiply-adds for an image of (height, width), in 10^9."""
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(0)) * 255
    analysis = FlopCountAnalysis(network, image).set_op_handle("aten::scaled_dot_product_attention", attention_flops)
    analysis.set_op_handle("align_detr::deformable_attention", sampling_flops)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    with torch.autocast("cpu", dtype=torch.bfloat16):  # the count does not depend on it, the time does
        return analysis.total() / 1e9


def resized(height: int, width: int, short: int = 800, longest: int = 1333) -> tuple[int, int]:
    """Return the size that evaluation resizes an image to."""
    scale = min(short / min(height, width), longest / max(height, width))
    return int(height * scale + 0.5), int(width * scale + 0.5)


def image_sizes() -> Counter:
    """Return how often each evaluation size occurs."""
    file = data_path("coco_mini/instances_val.json")
    if not file.is_file():
        return Counter([resized(480, 640)])
    images = json.loads(file.read_text())["images"]
    return Counter(resized(x["original_height"], x["original_width"]) for x in images)


def main(configs: list[str]) -> None:
    """Print a table."""
    sizes = image_sizes()
    print(f"{sum(sizes.values())} image(s) of {len(sizes)} size(s); DINO: one of 800x1280")
    print("| config | parameters (M) | published | multiply-adds (G) | published |\n|---|---|---|---|---|")
    for config in configs:
        cfg = model_zoo.get_config(config)
        is_detr = issubclass(cfg.model._target_, DETR)
        if is_detr:
            cfg.model.head.num_classes = 91
        detector = instantiate(cfg.model).eval()
        parameters = sum(p.numel() for p in detector.parameters()) / 1e6
        network = Network(detector) if is_detr else Detections(detector)
        counted = Counter([ONE_SIZE[config]]) if config in ONE_SIZE else sizes
        flops = sum(count_flops(network, size) * n for size, n in counted.items()) / sum(counted.values())
        published = PUBLISHED.get(config, ("-", "-"))
        print(f"| {config} | {parameters:.1f} | {published[0]} | {flops:.0f} | {published[1]} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(PUBLISHED))
