"""Where the tests find the project and the shared numeric fixtures and data sets."""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
GOLDEN = Path(os.environ.get("ALIGN_DETR_GOLDEN", PROJECT.parent / "shared" / "golden"))
DATA = Path(os.environ.get("ALIGN_DETR_DATA", PROJECT.parent / "shared" / "data"))
