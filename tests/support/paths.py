"""Where the tests find the project and the shared numeric fixtures and data sets."""

import os
from pathlib import Path

import pytest

from align_detr.paths import data_path

PROJECT = Path(__file__).resolve().parents[2]
GOLDEN = Path(os.environ.get("ALIGN_DETR_GOLDEN", PROJECT.parent / "shared" / "golden"))


def require_data(name: str) -> None:
    """Skip the test where the small real data set `name` is missing; the blood cells come with the checkout."""
    if name != "bccd" and not data_path(name).is_dir():
        pytest.skip(f"no data set {name} (set ALIGN_DETR_DATA)")
