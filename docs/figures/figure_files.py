"""What the figures share: where their files lie, how they are written, and the detectors that they show."""

import argparse
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

FOLDER = Path(__file__).resolve().parent
DEMO_WEIGHTS = FOLDER.parents[1] / "output" / "demo" / "weights.pth"
"""The blood cells' detector, which `make demo` trains."""


def options(script: str, name: str) -> argparse.ArgumentParser:
    """Return a parser with --out, by default the file `name` beside the scripts; `script` is the docstring."""
    parser = argparse.ArgumentParser(description=script, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER / name, metavar="FILE")
    return parser


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add --weights, by default those of `make demo`."""
    parser.add_argument("--weights", type=Path, default=DEMO_WEIGHTS, metavar="FILE", help="of `make demo`")


def write(figure: Figure, path: Path, *, dpi: int = 110) -> None:
    """Write a PNG of 256 colours on white, without version or date, so that equal figures give equal bytes."""
    content = BytesIO()
    figure.savefig(content, format="png", dpi=dpi, facecolor="white", bbox_inches="tight", pad_inches=0.06)
    Image.open(content).convert("RGB").quantize(256).save(path, format="png", optimize=True)
