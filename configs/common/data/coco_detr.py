"""COCO 2017 with DETR's augmentation: flip, short side 480 to 800, half of the time after a crop (official recipe)."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from omegaconf import OmegaConf

from align_detr.data import DetrMapper, build_test_loader, build_train_loader
from align_detr.evaluation import DetectionEvaluator

SIDES = list(range(480, 801, 32))

dataloader = OmegaConf.create()

dataloader.train = L(build_train_loader)(
    dataset="coco_2017_train",
    mapper=L(DetrMapper)(
        augmentations=[
            L(T.RandomFlip)(),
            L(T.ResizeShortestEdge)(short_edge_length=SIDES, max_size=1333, sample_style="choice"),
        ],
        augmentations_with_crop=[
            L(T.RandomFlip)(),
            L(T.ResizeShortestEdge)(short_edge_length=[400, 500, 600], sample_style="choice"),
            L(T.RandomCrop)(crop_type="absolute_range", crop_size=[384, 600]),
            L(T.ResizeShortestEdge)(short_edge_length=SIDES, max_size=1333, sample_style="choice"),
        ],
        is_train=True,
        image_format="RGB",
    ),
    total_batch_size=64,
    num_workers=4,
    aspect_ratio_grouping=False,  # as in official DETR; detectron2's own detectors group
)

dataloader.test = L(build_test_loader)(
    dataset="coco_2017_val",
    mapper=L(DetrMapper)(
        augmentations=[L(T.ResizeShortestEdge)(short_edge_length=[800, 800], max_size=1333)],
        is_train=False,
        image_format="${...train.mapper.image_format}",
    ),
    batch_size=1,
    num_workers=4,
)

dataloader.evaluator = L(DetectionEvaluator)(
    dataset_name="${..test.dataset}",
    output_dir="${...train.output_dir}/inference",
    max_detections=100,  # per image and class, as COCO
)
