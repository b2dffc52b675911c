"""DEIM's dense one-to-one data in one line of a config: `mix_images(dataloader)`. Its home is `align_detr.data`."""

from align_detr.data import mix_images

__all__ = ["mix_images"]
