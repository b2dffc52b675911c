"""onnxruntime: a file as a session of it, with its description."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from align_detr.cpus import usable_cpus
from align_detr.errors import ConfigError, EnvironmentProblem, NonFinitePrediction
from align_detr.export.metadata import INPUTS, OUTPUTS, Description, read_description
from align_detr.value_checks import check_count

_USUAL = ("CUDAExecutionProvider", "CPUExecutionProvider")


class Session:
    """A file that onnxruntime has loaded: arrays in, arrays out.

    threads: of one operation, by default one per usable CPU. providers: onnxruntime's execution providers, by default
    CUDA where the package has it, else the CPU. Nothing in an ONNX file is executed but its operators, and onnxruntime
    refuses weights outside of the file's folder. Raise ConfigError for a file that is none of ours, and
    EnvironmentProblem without onnxruntime.
    """

    def __init__(self, path: str | Path, *, threads: int | None, providers: Sequence[str] | None) -> None:
        onnxruntime = _onnxruntime()
        self.path = str(path)
        if not os.path.isfile(self.path):
            raise ConfigError(f"The file {path} does not exist: write one with align-detr export, or correct its path.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = usable_cpus() if threads is None else check_count(threads, "threads")
        options.log_severity_level = 3  # errors
        known = onnxruntime.get_available_providers()
        chosen = [x for x in _USUAL if x in known] if providers is None else _checked(providers, known)
        try:
            self._session = onnxruntime.InferenceSession(self.path, options, providers=chosen)
        except Exception as error:  # onnxruntime has a class per status
            raise ConfigError(
                f"{path} cannot be loaded as an ONNX file ({_first_line(error)}): export the detector again, or "
                "install a newer onnxruntime."
            ) from error
        self.description: Description = read_description(self._session.get_modelmeta().custom_metadata_map, self.path)
        names = tuple(x.name for x in self._session.get_inputs()), tuple(x.name for x in self._session.get_outputs())
        if set(names[0]) != set(INPUTS) or set(names[1]) != set(OUTPUTS):
            raise ConfigError(
                f"{path} has the inputs {', '.join(names[0])} and the outputs {', '.join(names[1])} in place of "
                f"{', '.join(INPUTS)} and {', '.join(OUTPUTS)}: export the detector again."
            )

    def run(self, inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return boxes (B, N, 4), scores (B, N) and labels (B, N).

        Raise EnvironmentProblem if onnxruntime fails, and NonFinitePrediction for NaN and infinity.
        """
        try:
            boxes, scores, labels = self._session.run(list(OUTPUTS), inputs)
        except Exception as error:  # onnxruntime has a class per status
            shape = "x".join(map(str, inputs["images"].shape))
            raise EnvironmentProblem(
                f"onnxruntime cannot run {self.path} on images of {shape} ({_first_line(error)}): use another size or "
                "batch size, or export the detector again."
            ) from error
        count = len(self.description.classes.names)
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            whole = self.description.precision == "fp32"
            remedy = "export it from another checkpoint" if whole else "export the detector in fp32"
            raise NonFinitePrediction(f"{self.path} predicts NaN or infinity: {remedy}.")
        if labels.size and not (labels.min() >= 0 and labels.max() < count):
            raise ConfigError(
                f"{self.path} predicts a class outside of its {count} class names: export the detector again."
            )
        return boxes, scores, labels


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EnvironmentProblem(
            f"ONNX files are run by onnxruntime, which cannot be imported ({error}): pip install onnxruntime."
        ) from error
    return onnxruntime


def _checked(providers: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the providers; raise ConfigError for one that onnxruntime would leave out with a warning."""
    listed = [providers] if isinstance(providers, str) else list(providers)
    for name in listed:
        if name not in known:
            raise ConfigError(
                f"providers names {name!r}, but this onnxruntime has {', '.join(known)}: name some of them, or install "
                "the onnxruntime package with it."
            )
    if not listed:
        raise ConfigError(f"providers is empty: name one of {', '.join(known)}.")
    return listed


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:300].rstrip(". ") if lines else type(error).__name__
