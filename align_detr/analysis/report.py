"""The report's numbers: a dictionary that is also its JSON."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from align_detr.analysis.bootstrap import SAMPLES, compare, describe
from align_detr.analysis.numbers import AllMetrics, numbers_of
from align_detr.analysis.reading import read_results, read_truth
from align_detr.analysis.results import Results
from align_detr.analysis.tables import Detections, Truth
from align_detr.errors import ConfigError

_COMMON = "coco_instances_results"

FORMAT = 1
"""Version of the JSON; a change that old readers would misread makes it another number."""


def analyse(
    truth: Truth,
    detectors: Mapping[str, Detections],
    *,
    max_detections: int = 100,
    samples: int = SAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the numbers of detectors by name, and the differences of each from the first: what JSON can hold.

    `max_detections`: how many of the best detections of an image and class count for AP. `samples`, `seed`: of the
    bootstrap; 0 samples give no intervals. None stands where nothing is to be measured.
    """
    numbers, differences = [], []
    first: tuple[str, AllMetrics] | None = None
    for name, detections in detectors.items():
        results = Results(truth, detections, max_detections)
        metrics = AllMetrics(results)
        numbers.append({"name": name, "file": None, **numbers_of(results, metrics)})
        del results  # the largest part of the memory
        if first is None:
            first = name, metrics
        else:
            differences.append(_difference(truth, (name, metrics), first, samples, seed))
    crowds = int(truth.objects.crowd.sum())
    return plain(
        {
            "format": FORMAT,
            "ground_truth": {
                "file": None,
                "images": truth.num_images,
                "objects": len(truth.objects) - crowds,
                "crowd_objects": crowds,
                "classes": truth.class_names,
            },
            "detectors": numbers,
            "differences": differences,
        }
    )


def analyse_files(
    truth_file: str | Path, results_files: Sequence[str | Path], *, names: Sequence[str] | None = None, **options: Any
) -> dict[str, Any]:
    """Return `analyse` of files in COCO's formats, with their names.

    Without `names`, a detector has that of `name_files`. Raise DatasetError for a file that cannot be used, ConfigError
    for names that repeat.
    """
    names = name_files(results_files) if names is None else list(names)
    if len(set(names)) < len(names) or len(names) != len(results_files):
        raise ConfigError(f"The names of the results are {', '.join(names)}: give each file another name.")
    truth = read_truth(truth_file)
    detectors = {name: read_results(file, truth) for name, file in zip(names, results_files, strict=True)}
    numbers = analyse(truth, detectors, **options)
    numbers["ground_truth"]["file"] = str(truth_file)
    for detector, file in zip(numbers["detectors"], results_files, strict=True):
        detector["file"] = str(file)
    return numbers


def name_files(files: Sequence[str | Path]) -> list[str]:
    """Return a name per file: its stem, or its folder's where the stem tells nothing or repeats another's.

    detectron2 gives every results file one name, in a folder `inference`, which tells nothing either. Names that are
    equal even so are numbered.
    """
    paths = [Path(file).resolve() for file in files]
    stems = Counter(path.stem for path in paths)
    names = [path.stem if stems[path.stem] == 1 and path.stem != _COMMON else _folder_of(path) for path in paths]
    times, seen = Counter(names), Counter[str]()
    for index, name in enumerate(names):
        if times[name] > 1:
            seen[name] += 1
            names[index] = f"{name} ({seen[name]})"
    return names


def _folder_of(path: Path) -> str:
    return next((folder.name for folder in path.parents if folder.name not in ("", "inference")), path.stem)


def plain(value: Any) -> Any:
    """Return a value as JSON has it: lists, numbers of Python, None for what is not finite."""
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _difference(
    truth: Truth, second: tuple[str, AllMetrics], first: tuple[str, AllMetrics], samples: int, seed: int
) -> dict[str, Any]:
    """Return the part of the report that is of the difference of two detectors, each with its name."""
    (of, metrics), (over, others), number = second, first, truth.num_images
    found = compare(others, metrics, num_images=number, samples=samples, seed=seed)
    return {
        "of": of,
        "over": over,
        "images": number,
        "samples": samples,
        "seed": seed,
        "metrics": {name: asdict(difference) for name, difference in found.items()},
        "sentence": describe("AP", of, over, found["AP"], number),
    }
