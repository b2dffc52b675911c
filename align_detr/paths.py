"""Folders that the environment names, and the small real data sets that come with a checkout."""

import os
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[1]

# The remedy for a file that `is_small_data` but does not exist.
SMALL_DATA_REMEDY = (
    "set ALIGN_DETR_DATA to the folder of the small data sets (the blood cells and the MobileNetV2 weights are the "
    "folder datasets of a checkout of the project; an installed package has no data and fetches none)"
)


# What else starts a training where that is the pretrained backbone of a checkout.
WITHOUT_CHECKOUT = (
    "or train without it: Detector('digits').train(DATA) in Python, pip install 'align_detr[backbones]' with "
    "--config-file quickstart/bccd_align_dino_efficientnet.py, or train.init_checkpoint= for random weights"
)


def data_folders() -> list[Path]:
    """Return the folders in which the small real data sets are looked for, in this order.

    ALIGN_DETR_DATA where it is set, the checkout's own datasets, and ../shared/data beside the checkout.
    """
    own = [_CHECKOUT / "datasets", _CHECKOUT.parent / "shared" / "data"]
    named = os.environ.get("ALIGN_DETR_DATA")
    return [Path(named).expanduser().resolve(), *own] if named else own


def data_path(name: str) -> Path:
    """Return `name`, such as "bccd/images", in the first of `data_folders` that has it, or else in the first."""
    paths = [folder / name for folder in data_folders()]
    return next((path for path in paths if path.exists()), paths[0])


def is_small_data(path: str | os.PathLike[str]) -> bool:
    """Return whether `path` lies in one of the folders in which the small real data sets are looked for."""
    return any(Path(path).resolve().is_relative_to(folder) for folder in data_folders())


def cache_folder() -> Path:
    """Return the folder for files that are made at first use: ALIGN_DETR_CACHE, by default ~/.cache/align_detr."""
    return Path(os.environ.get("ALIGN_DETR_CACHE") or Path.home() / ".cache" / "align_detr").expanduser().resolve()
