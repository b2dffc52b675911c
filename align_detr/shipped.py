"""Detectors that come with the package: a name, and the file of its weights."""

from pathlib import Path

from align_detr.errors import ConfigError

SHIPPED = {"digits": "digits.pth"}
"""Name -> file in the package's folder `weights`."""


def weights_file(name: str | Path) -> str | Path:
    """Return the file of weights that a user names: a path, or the name of a detector that comes with the package."""
    if isinstance(name, str) and name in SHIPPED and not Path(name).is_file():
        return shipped_weights(name)
    return name


def shipped_weights(name: str) -> Path:
    """Return the file of a detector that comes with the package; raise ConfigError where it is missing."""
    path = Path(__file__).resolve().parent / "weights" / SHIPPED[name]
    if not path.is_file():
        raise ConfigError(
            f"The detector '{name}' should come with the package, but {path} does not exist: install the package "
            "again, or pass a config and weights of your own."
        )
    return path
