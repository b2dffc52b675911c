"""Which of an image's detections are returned."""

from dataclasses import dataclass
from typing import Any, TypeVar

from align_detr.errors import ConfigError
from align_detr.value_checks import check_between, check_count, is_number

AnyFound = TypeVar("AnyFound", bound=Any)


@dataclass(frozen=True)
class Picking:
    """What to return of an image, and how to read it; `Detector.predict` says what they mean."""

    threshold: float | None = None
    top_k: int | None = None
    white_level: float | None = None

    def check_for(self, limit: float) -> None:
        """Raise ConfigError for a number out of its range, or more detections than the `limit` that the model gives."""
        if self.threshold is not None:
            check_between(self.threshold, "threshold", 0, 1, "set it to a score between them, such as 0.5")
        if self.white_level is not None and not (is_number(self.white_level) and self.white_level > 0):
            raise ConfigError(
                f"white_level is {self.white_level!r}, but must be a positive number: set it to the grey level of "
                "white, such as 4095 of a camera with 12 bits."
            )
        if self.top_k is not None and check_count(self.top_k, "top_k") > limit:
            raise ConfigError(
                f"top_k is {self.top_k}, but the model gives at most {limit} detections per image: set top_k from 1 to "
                "that, or model.postprocess.num_detections of the config higher."
            )

    def pick(self, found: AnyFound) -> AnyFound:
        """Return the detections, best first, that the options ask for."""
        if self.top_k is not None:
            found = found[: self.top_k]
        return found if self.threshold is None else found[found.scores >= self.threshold]
