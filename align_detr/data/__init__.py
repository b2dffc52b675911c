"""Data sets, mapper and loaders. Importing this package registers the built-in data sets (no file is read)."""

from align_detr.data.build import build_test_loader, build_train_loader
from align_detr.data.builtin import register_builtin_datasets
from align_detr.data.check_records import check_dataset
from align_detr.data.datasets import (
    check_num_classes,
    check_same_classes,
    count_images,
    count_training_images,
    datasets_read_once,
    load_dataset,
)
from align_detr.data.dense_data import mix_images
from align_detr.data.layouts import DataFolder, Split, find
from align_detr.data.mapper import DetrMapper
from align_detr.data.mask_mapper import MaskMapper
from align_detr.data.mixing import Mix, MixUp, Mosaic
from align_detr.data.panoptic import register_panoptic
from align_detr.paths import data_path

register_builtin_datasets()

__all__ = [
    "DataFolder",
    "DetrMapper",
    "MaskMapper",
    "Mix",
    "MixUp",
    "Mosaic",
    "Split",
    "build_test_loader",
    "build_train_loader",
    "check_dataset",
    "check_num_classes",
    "check_same_classes",
    "count_images",
    "count_training_images",
    "data_path",
    "datasets_read_once",
    "find",
    "load_dataset",
    "mix_images",
    "register_builtin_datasets",
    "register_panoptic",
]
