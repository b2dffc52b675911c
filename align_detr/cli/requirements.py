"""What a subcommand needs before it can start."""

import importlib.util
import sys

from align_detr.errors import EnvironmentProblem


def require_detectron2() -> None:
    """Raise EnvironmentProblem unless torch and detectron2 are installed."""
    missing = [name for name in ("torch", "detectron2") if importlib.util.find_spec(name) is None]
    if missing:
        raise EnvironmentProblem(f"{' and '.join(missing)} cannot be imported by {sys.executable}: run `make setup`.")
