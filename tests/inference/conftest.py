"""A small detector with random weights, and photos for it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.data import transforms as T
from omegaconf import DictConfig
from PIL import Image

from align_detr.detector import Detector
from support.shrink import config, small_model
from support.subject import randomise

NAME = "align_detr/align_dino_r50_4scale_12ep.py"
CLASSES = ["cell", "ring", "ghost"]


def small_config() -> DictConfig:
    """Return a whole config of a shrunk Align-DINO of three classes, for images of 64 pixels."""
    cfg = config(NAME).copy()
    cfg.model = small_model(NAME)
    cfg.train.update(class_names=CLASSES, init_checkpoint="")
    cfg.dataloader.test.mapper.augmentations = [L(T.ResizeShortestEdge)(short_edge_length=[64, 64], max_size=107)]
    return cfg


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    """The detector; whoever changes it puts it back."""
    torch.manual_seed(6)
    detector = Detector(small_config(), device="cpu")
    randomise(detector.model)
    return Detector(small_config(), weights=saved(detector, tmp_path_factory.mktemp("weights")), device="cpu")


def saved(detector: Detector, folder: Path) -> Path:
    """Return a file of the detector's weights."""
    return detector.save(folder / "weights.pth")


def pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return a picture (H, W, 3) of coloured patches, so that resizing leaves something to see."""
    patches = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of three photos, of which one lies in a folder below and two have one name."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for k, (name, size) in enumerate({"b.png": (60, 80), "a.png": (90, 50), "more/a.png": (60, 80)}.items()):
        Image.fromarray(pixels(*size, seed=k)).save(folder / name)
    return folder
