"""Boxes with labels on a picture."""

import colorsys
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]
_GOLDEN = 0.618034  # of a turn: neighbouring classes get distant hues
_PAD = 2  # pixels around a label's text


def draw_boxes(
    image: Image.Image,
    *,
    boxes: Sequence[Sequence[float]],
    scores: Sequence[float] | None,
    classes: Sequence[int],
    names: Sequence[str],
) -> Image.Image:
    """Return a copy of an RGB image with absolute xyxy boxes and their labels, the best detection on top.

    A class has one colour in every picture, and labels stay inside of it. Objects have no scores (None).
    """
    picture = image.copy()
    draw = ImageDraw.Draw(picture)
    side = max(picture.size)
    width, font = max(2, round(side / 400)), _font(max(12, round(side / 50)))
    for k in range(len(boxes)) if scores is None else sorted(range(len(boxes)), key=scores.__getitem__):
        color = color_of(classes[k])
        x0, y0, x1, y1 = boxes[k]
        draw.rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=color, width=width)
        label = names[classes[k]] if scores is None else f"{names[classes[k]]} {scores[k]:.2f}"
        _draw_label(draw, picture.size, (x0, y0), label, color, font)
    return picture


def color_of(label: int) -> Color:
    """Return the colour of a class."""
    red, green, blue = colorsys.hsv_to_rgb((0.58 + label * _GOLDEN) % 1, 0.85, 0.95 if label % 2 == 0 else 0.75)
    return round(255 * red), round(255 * green), round(255 * blue)


def _draw_label(
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    corner: tuple[float, float],
    text: str,
    color: Color,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Draw a text on its class's colour above a box, or inside of it at the picture's upper edge."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left + 2 * _PAD, bottom - top + 2 * _PAD
    x = max(0, min(corner[0], size[0] - width))
    y = corner[1] - height if corner[1] >= height else max(0, corner[1])
    draw.rectangle((x, y, x + width, y + height), fill=color)
    luminance = (299 * color[0] + 587 * color[1] + 114 * color[2]) / 1000
    draw.text((x + _PAD - left, y + _PAD - top), text, fill="black" if luminance > 140 else "white", font=font)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return matplotlib's DejaVu Sans, which has more letters than Pillow's own font, or Pillow's."""
    found = find_spec("matplotlib")
    if found is not None and found.origin:
        path = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        try:
            return ImageFont.truetype(str(path), size)
        except OSError:  # packed otherwise, or Pillow without FreeType
            pass
    return ImageFont.load_default(size)
