"""Where the tests find the shared numeric fixtures and data sets; both are optional in a user's clone."""

import os
from pathlib import Path

import pytest
import torch
from paths import DATA, GOLDEN

torch.set_num_threads(min(2, os.cpu_count() or 1))


@pytest.fixture(scope="session")
def golden_root() -> Path:
    """Folder of the numeric fixtures; skips where there is none."""
    if not GOLDEN.is_dir():
        pytest.skip(f"no numeric fixtures at {GOLDEN} (set ALIGN_DETR_GOLDEN)")
    return GOLDEN


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the small real data sets; skips where there is none."""
    if not DATA.is_dir():
        pytest.skip(f"no data sets at {DATA} (set ALIGN_DETR_DATA)")
    return DATA
