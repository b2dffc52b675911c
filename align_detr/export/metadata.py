"""What an exported file says of itself, as its reader needs it: the JSON under the key `align_detr` of its metadata."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from align_detr.errors import ConfigError
from align_detr.inference.classes import Classes

KEY = "align_detr"
FORMAT = 1
INPUTS, OUTPUTS = ("images", "sizes"), ("boxes", "scores", "labels")
LARGEST = 1 << 15  # pixels of a side: larger ones are no sizes, but faults


@dataclass(frozen=True)
class Description:
    """How images go into an exported detector, and what comes out.

    `mean` and `std` are in the order `channels`, which is also that of `normalised` input; uint8 input is RGB. `size`
    (height, width) and `batch` are None where they are free; free sizes are padded to multiples of `multiple`.
    `resize` is the least short edge and the largest long edge of the test mapper, `white_level` its level of white.
    """

    architecture: str
    classes: Classes
    normalised: bool
    channels: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int] | None
    multiple: int
    batch: int | None
    resize: tuple[int, int] | None
    num_detections: int
    precision: str
    white_level: float | None = None


def read_description(metadata: Mapping[str, str], file: str) -> Description:
    """Return the description in a file's metadata; raise ConfigError where there is none that can be used."""
    if KEY not in metadata:
        raise ConfigError(
            f"{file} is an ONNX file, but none that this library has exported: write one with align-detr export."
        )
    try:
        content = json.loads(metadata[KEY])
        number = content["format"]
        if not isinstance(number, int) or number < 1:
            raise ValueError(f"format is {number!r}")
        if number > FORMAT:
            raise ConfigError(
                f"{file} has format {number} of exported files, but this version of align_detr reads up to {FORMAT}: "
                f"install version {content.get('version')} or newer."
            )
        return _description(content)
    except ConfigError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ConfigError(
            f"The metadata of {file} is damaged ({type(error).__name__}: {error}): export the detector again."
        ) from error


def _description(content: Any) -> Description:
    names, ids = content["class_names"], content["category_ids"]
    if not names or not all(isinstance(name, str) for name in names) or (ids is not None and len(ids) != len(names)):
        raise ValueError("class_names and category_ids do not fit")
    size, resize = content["size"], content["resize"]
    return Description(
        architecture=str(content["architecture"]),
        classes=Classes(list(names), {} if ids is None else {k: int(number) for k, number in enumerate(ids)}),
        normalised=_one_of(content, "input", ("uint8", "normalised")) == "normalised",
        channels=_one_of(content, "channels", ("RGB", "BGR")),
        mean=_three(content["pixel_mean"]),
        std=_three(content["pixel_std"], positive=True),
        size=None if size is None else _pair(*size),
        multiple=_count(content["size_multiple"]),
        batch=None if content["batch"] is None else _count(content["batch"]),
        resize=None if resize is None else (_count(resize["short_edge"]), _limit(resize["max_size"])),
        num_detections=_count(content["num_detections"]),
        precision=str(content["precision"]),
        white_level=None if content.get("white_level") is None else _finite(content["white_level"], positive=True),
    )


def _one_of(content: Mapping[str, Any], key: str, choices: tuple[str, ...]) -> str:
    if content[key] not in choices:
        raise ValueError(f"{key} is {content[key]!r}")
    return str(content[key])


def _three(values: Any, *, positive: bool = False) -> tuple[float, ...]:
    first, second, third = values
    return tuple(_finite(value, positive=positive) for value in (first, second, third))


def _finite(value: Any, *, positive: bool = False) -> float:
    number = float(value)
    if not math.isfinite(number) or (positive and number <= 0):
        raise ValueError(f"{value!r} is no {'positive' if positive else 'finite'} number")
    return number


def _pair(height: Any, width: Any) -> tuple[int, int]:
    return _count(height), _count(width)


def _count(value: Any) -> int:
    if not isinstance(value, int) or not 1 <= value <= LARGEST:
        raise ValueError(f"{value!r} is no number from 1 to {LARGEST}")
    return value


def _limit(value: Any) -> int:
    """Return a limit of the long edge, which may be larger than any image."""
    return _count(min(value, LARGEST))
