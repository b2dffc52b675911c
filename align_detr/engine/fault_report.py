"""The report on a step that is not finite: a JSON file to read, and the batch with the weights, to compute it again."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from align_detr.checkpoint.restricted import read_torch
from align_detr.engine.faults import Findings, RandomState
from align_detr.engine.memory import describe_sizes
from align_detr.errors import ConfigError

_PLAIN = (str, int, float, bool)


@dataclass(frozen=True)
class SavedStep:
    """A batch, the weights and the generators' states before its step, in how many parts it was computed, and which
    share of training was over.
    """

    batch: list[Any]
    model: Mapping[str, Tensor]
    random: RandomState
    accumulate: int
    progress: float = 0.0


def write_report(
    folder: Path,
    *,
    sentence: str,
    iteration: int,
    process: int,
    step: SavedStep,
    found: Findings,
) -> Path:
    """Write the report of a step and, beside it, what `read_step` reads and the run's config; return the report's path.

    All are written under another name first, so that no half of a file is left.
    """
    path = folder / f"fault_{iteration:07d}{f'_process{process}' if process else ''}.json"
    content = {
        "sentence": sentence,
        "iteration": iteration,
        "process": process,
        "images": [_describe(record) for record in step.batch],
        "losses": _strict(found.losses),
        "first_layer_not_finite": found.layer or None,
        "error_of_second_pass": found.error or None,
        "largest_gradients": _strict(found.gradients),
        "step": path.with_suffix(".pth").name,
    }
    saved = {
        "batch": [_plain(record) for record in step.batch],
        "model": dict(step.model),
        "random": [step.random.host, step.random.device],
        "accumulate": step.accumulate,
        "progress": step.progress,
    }
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{path.name}"
    torch.save(saved, unfinished)
    unfinished.replace(path.with_suffix(".pth"))
    if (config := folder / "config.yaml").is_file():  # that of this run: the file is written anew by --resume
        unfinished.write_bytes(config.read_bytes())
        unfinished.replace(path.with_suffix(".yaml"))
    unfinished.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    unfinished.replace(path)
    return path


def read_step(report: Path) -> SavedStep:
    """Read the step of a report, by the safe reader. Raise ConfigError for a file that is missing, damaged or other."""
    path = report.with_suffix(".pth")
    if not path.is_file():
        raise ConfigError(f"There is no {path}, which a fault report has beside it: pass the path of a fault_*.json.")
    saved = read_torch(str(path))
    try:
        host, device = saved["random"]
        batch = [_record(record) for record in saved["batch"]]
        accumulate, progress = int(saved["accumulate"]), float(saved.get("progress", 0.0))
        return SavedStep(batch, saved["model"], RandomState(host, device), accumulate, progress)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path} is no saved step ({error!r}): pass the path of a fault_*.json.") from error


def table(batch: Sequence[Any], found: Findings) -> list[str]:
    """Return what is known of a step as lines: images, losses, the first layer at fault, the largest gradients."""
    lines = ["images:"]
    lines += [f"  {describe_sizes([record])}  {_file(record)}".rstrip() for record in batch]
    lines += ["losses:", *(f"  {name:<24} {value:g}" for name, value in found.losses.items())]
    lines.append(f"first layer whose output is not finite: {found.layer or 'none'}")
    lines += ["largest gradients:", *(f"  {name:<48} {norm:g}" for name, norm in found.gradients.items())]
    return [*lines, *([f"error: {found.error}"] if found.error else [])]


def _file(record: Any) -> str:
    return str(record.get("file_name", "")) if isinstance(record, Mapping) else ""


def _describe(record: Any) -> dict[str, Any]:
    """Return file, size in the batch and number of objects of a record, as far as it has them."""
    if not isinstance(record, Mapping):
        return {}
    image = record.get("image")
    size = {"width": image.shape[-1], "height": image.shape[-2]} if isinstance(image, Tensor) else {}
    objects = {"objects": len(record["instances"])} if "instances" in record else {}
    return {"file_name": _file(record), **size, **objects}


def _strict(numbers: Mapping[str, float]) -> dict[str, float | str]:
    """Return the numbers for strict JSON, in which NaN and infinity are text."""
    return {name: value if math.isfinite(value) else str(value) for name, value in numbers.items()}


def _plain(record: Any) -> Any:
    """Return a record of a batch as tensors and plain values; what else it holds is left out."""
    if isinstance(record, Tensor):
        return record
    if not isinstance(record, Mapping):
        return None
    plain: dict[str, Any] = {key: value for key, value in record.items() if isinstance(value, (Tensor, *_PLAIN))}
    instances = record.get("instances")
    if isinstance(instances, Instances):
        fields = {
            name: value.tensor if isinstance(value, Boxes) else value for name, value in instances.get_fields().items()
        }
        kept = {name: value for name, value in fields.items() if isinstance(value, Tensor)}
        plain["instances"] = {"image_size": list(instances.image_size), "fields": kept}
    return plain


def _record(plain: Any) -> Any:
    """Return the record of a batch that `_plain` was given."""
    if not isinstance(plain, dict) or "instances" not in plain:
        return plain
    height, width = plain["instances"]["image_size"]
    instances = Instances((height, width))
    for name, value in plain["instances"]["fields"].items():
        instances.set(name, Boxes(value) if name.endswith("boxes") else value)
    return {**plain, "instances": instances}


def bare(model: nn.Module) -> nn.Module:
    """Return the model inside of DistributedDataParallel, else the model itself."""
    inner = getattr(model, "module", None)
    return inner if isinstance(inner, nn.Module) and isinstance(model, nn.parallel.DistributedDataParallel) else model
