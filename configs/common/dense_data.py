"""DEIM's dense one-to-one data in one line of a config: `mix_images(dataloader)`."""

from detectron2.config import LazyCall as L
from omegaconf import DictConfig

from align_detr.data import MixUp, Mosaic


def mix_images(dataloader: DictConfig, *, start: float, stop: float, probability: float = 0.5) -> None:
    """Let training see mosaics, and sums of two images, each with `probability`, between two shares of training."""
    options = dict(probability=probability, start=start, stop=stop)
    dataloader.train.mixes = [L(Mosaic)(**options), L(MixUp)(**options)]
