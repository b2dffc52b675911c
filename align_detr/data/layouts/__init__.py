"""Data sets in a folder, whatever their layout: COCO, Pascal VOC, YOLO, shards, and what tools make of them."""

from align_detr.data.layouts.find import LAYOUTS, find
from align_detr.data.layouts.folder import DataFolder, Split

__all__ = ["LAYOUTS", "DataFolder", "Split", "find"]
