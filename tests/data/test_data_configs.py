"""The data configs load, more than once, and give loaders with the sizes they state."""

from pathlib import Path

import numpy as np
import pytest
from detectron2.config import LazyConfig, instantiate
from detectron2.data import MetadataCatalog
from detectron2.data import transforms as T

from align_detr.data.datasets import as_names
from align_detr.evaluation import DetectionEvaluator
from support.paths import require_data

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "common" / "data"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_config_names_registered_data_and_its_evaluator(path: Path) -> None:
    for _ in range(2):
        dataloader = LazyConfig.load(str(path)).dataloader
    for node in (dataloader.train, dataloader.test):
        for name in as_names(node.dataset):
            assert MetadataCatalog.get(name).evaluator_type == "coco"
        assert node.mapper.image_format == "RGB"
    assert dataloader.evaluator.dataset_name == dataloader.test.dataset
    assert dataloader.evaluator._target_ is DetectionEvaluator
    assert instantiate(dataloader.train.mapper).is_train and not instantiate(dataloader.test.mapper).is_train


def test_digits_are_neither_flipped_nor_resized() -> None:
    """Photos of another size are, in evaluation: their short side becomes that of the data."""
    dataloader = LazyConfig.load(str(FOLDER / "digits.py")).dataloader
    train, test = instantiate(dataloader.train.mapper), instantiate(dataloader.test.mapper)
    assert train.augmentations.augs == [] and train.augmentations_with_crop is None
    image = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    seen = T.AugInput(image.copy())
    test.augmentations(seen)
    assert np.array_equal(seen.image, image)
    photo = T.AugInput(np.zeros((960, 1280, 3), np.uint8))
    test.augmentations(photo)
    assert photo.image.shape == (128, 171, 3)


def test_a_variant_leaves_its_parent_as_it_is() -> None:
    LazyConfig.load(str(FOLDER / "coco_mini.py"))
    parent = LazyConfig.load(str(FOLDER / "coco_detr.py")).dataloader
    assert parent.train.dataset == "coco_2017_train" and parent.train.total_batch_size == 64
    assert list(parent.train.mapper.augmentations[1].short_edge_length) == list(range(480, 801, 32))


@pytest.mark.parametrize("name", ["coco_mini", "bccd", "raccoon"])
def test_real_loaders(name: str) -> None:
    require_data(name)
    dataloader = LazyConfig.load(str(FOLDER / f"{name}.py")).dataloader
    dataloader.train.update(num_workers=0, seed=0)
    dataloader.test.update(num_workers=0, batch_size=4)
    batch = next(iter(instantiate(dataloader.train)))
    assert len(batch) == dataloader.train.total_batch_size
    assert all(max(entry["image"].shape) <= 480 and "instances" in entry for entry in batch)
    batch = next(iter(instantiate(dataloader.test)))
    assert len(batch) == 4 and all(max(entry["image"].shape) <= 480 for entry in batch)
    dataloader.evaluator.output_dir = None
    assert len(instantiate(dataloader.evaluator).truth.images) == len(instantiate(dataloader.test).dataset)
