"""The smallest detector with the model contract, and its data: tests of the engine depend on no real model."""

import json
from pathlib import Path

import numpy as np
import torch
from detectron2.data import DatasetCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.structures import Boxes, Instances
from PIL import Image
from torch import nn
from torch.nn import functional as F

SIDE = 32
CLASSES = ("dark", "bright")


class TinyDetector(nn.Module):
    """One box and one class per image; losses are means over the images of the batch."""

    def __init__(self, *, num_classes: int = 2, channels: int = 4) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(channels * 16)
        self.class_embed = nn.Linear(channels * 16, num_classes)
        self.bbox_embed = nn.Linear(channels * 16, 4)
        # The untrained box is the middle of the image: AP is not 0, so that tests can tell evaluations apart.
        nn.init.normal_(self.bbox_embed.weight, std=0.02)
        self.bbox_embed.bias.data = torch.logit(torch.tensor([0.25, 0.25, 0.75, 0.75]))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, batched_inputs):
        images = torch.stack([x["image"].float() for x in batched_inputs]).to(self.seen.device) / 255
        features = self.norm(F.adaptive_avg_pool2d(self.backbone(images).relu(), 4).flatten(1))
        logits, boxes = self.class_embed(features).float(), self.bbox_embed(features).float().sigmoid()
        if not self.training:
            return [self._detections(*item) for item in zip(batched_inputs, logits, boxes, strict=True)]
        labels = torch.stack([x["instances"].gt_classes[0] for x in batched_inputs]).to(logits.device)
        targets = torch.cat([x["instances"].gt_boxes.tensor[:1] for x in batched_inputs]).to(logits.device) / SIDE
        return {"loss_class": F.cross_entropy(logits, labels), "loss_bbox": F.l1_loss(boxes, targets)}

    def _detections(self, inputs, logits, box):
        score, label = logits.softmax(-1).max(-1)
        result = Instances((inputs["height"], inputs["width"]))
        low, high = torch.minimum(box[:2], box[2:]), torch.maximum(box[:2], box[2:])
        result.pred_boxes = Boxes(torch.cat([low, high])[None] * SIDE)
        result.scores, result.pred_classes = score[None], label[None]
        return {"instances": result}


def read_image(record):
    """Read an image as it is."""
    image = np.asarray(Image.open(record["file_name"]).convert("RGB"))
    keys = ("height", "width", "image_id", "file_name")
    return {**{k: record[k] for k in keys}, "image": torch.tensor(image).permute(2, 0, 1)}


def map_record(record):
    """Read an image as it is; keep its first object."""
    x, y, w, h = record["annotations"][0]["bbox"]
    instances = Instances((record["height"], record["width"]))
    instances.gt_boxes = Boxes(torch.tensor([[x, y, x + w, y + h]], dtype=torch.float32))
    instances.gt_classes = torch.tensor([record["annotations"][0]["category_id"]])
    return {**read_image(record), "instances": instances}


def register(root: Path) -> None:
    """Register "tiny_train" and "tiny_val" of `root`, in place of those of another folder."""
    for split in ("train", "val"):
        if f"tiny_{split}" in DatasetCatalog.list():
            DatasetCatalog.remove(f"tiny_{split}")
            from detectron2.data import MetadataCatalog

            MetadataCatalog.pop(f"tiny_{split}", None)
        register_coco_instances(f"tiny_{split}", {}, str(root / f"{split}.json"), str(root / "images"))


def write_data(root: Path, train: int = 8, val: int = 4) -> None:
    """Write squares on grey, dark or bright, as PNG files with COCO annotations."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    for split, count in (("train", train), ("val", val)):
        images, annotations = [], []
        for i in range(count):
            label, (x, y), side = i % 2, rng.integers(5, 12, 2), int(rng.integers(14, 18))
            pixels = np.full((SIDE, SIDE, 3), 128, np.uint8) + rng.integers(0, 9, (SIDE, SIDE, 3), dtype=np.uint8)
            pixels[y : y + side, x : x + side] = 255 * label
            name = f"{split}_{i}.png"
            Image.fromarray(pixels).save(root / "images" / name)
            images.append({"id": i + 1, "file_name": name, "height": SIDE, "width": SIDE})
            box = [int(x), int(y), side, side]
            annotations.append(
                {"id": i + 1, "image_id": i + 1, "category_id": label + 1, "bbox": box, "area": side**2, "iscrowd": 0}
            )
        categories = [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]
        coco = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"{split}.json").write_text(json.dumps(coco))
