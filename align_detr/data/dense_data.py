"""DEIM's dense one-to-one data as a change to the config of any loader."""

from detectron2.config import LazyCall as L
from omegaconf import DictConfig

from align_detr.data.mixing import MixUp, Mosaic


def mix_images(dataloader: DictConfig, *, start: float, stop: float, probability: float = 0.5) -> None:
    """Let training see mosaics, and sums of two images, each with `probability`, between two shares of training."""
    options = dict(probability=probability, start=start, stop=stop)
    dataloader.train.mixes = [L(Mosaic)(**options), L(MixUp)(**options)]
