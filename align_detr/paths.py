"""Folders that the environment names."""

import os
from pathlib import Path


def data_folder() -> Path:
    """Return the folder of the small real data sets: ALIGN_DETR_DATA, by default ../shared/data beside the project."""
    default = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    return Path(os.environ.get("ALIGN_DETR_DATA") or default).expanduser().resolve()


def cache_folder() -> Path:
    """Return the folder for files that are made at first use: ALIGN_DETR_CACHE, by default ~/.cache/align_detr."""
    return Path(os.environ.get("ALIGN_DETR_CACHE") or Path.home() / ".cache" / "align_detr").expanduser().resolve()
