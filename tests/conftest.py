"""Where the tests find the shared numeric fixtures and data sets; both are optional in a user's clone."""

from pathlib import Path

import pytest
import torch
from paths import DATA, GOLDEN

torch.set_num_threads(1)  # small tensors; and threads that wait for each other crawl on a busy machine


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
