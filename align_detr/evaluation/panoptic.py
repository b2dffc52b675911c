"""Panoptic quality of any registered panoptic data set, as a detectron2 evaluator that needs no other package."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from tabulate import tabulate

from align_detr.data.panoptic import panoptic_metadata, read_panoptic_json, read_picture, things_first
from align_detr.errors import ConfigError, DatasetError

logger = logging.getLogger(__name__)

TASK = "panoptic_seg"
_VOID = 0
_MATCHED, _IGNORED = 0.5, 0.5  # IoU above which segments match; share of a segment beside which it is ignored


class PanopticEvaluator(DatasetEvaluator):
    """Panoptic quality (Kirillov et al. 2019) of outputs with `panoptic_seg`, of detectron2's form.

    A segment of the output matches one of the ground truth if both have one class and an IoU above one half, where
    pixels without ground truth do not count. Per class, SQ is the mean IoU of the matches, RQ = TP / (TP + FP / 2 +
    FN / 2), and PQ = SQ RQ; the means are over the classes that occur in the ground truth or the output. Crowd regions
    are never missed, and a segment that lies by more than half on pixels without ground truth or on a crowd region of
    its class is no false one. The numbers are those of COCO's panopticapi, in the form of detectron2's
    COCOPanopticEvaluator, for which that package has to be installed.

    `dataset_name` has `panoptic_json` and `panoptic_root` in its metadata (see `register_panoptic`). The constructor
    reads the JSON file; raise ConfigError for a data set without one, DatasetError for one that cannot be used.
    """

    def __init__(self, *, dataset_name: str) -> None:
        metadata = MetadataCatalog.get(dataset_name)
        if metadata.get("panoptic_json") is None or metadata.get("panoptic_root") is None:
            raise ConfigError(
                f"The data set '{dataset_name}' has no panoptic annotations: register it by register_panoptic."
            )
        if not Path(metadata.panoptic_json).is_file():
            raise DatasetError(
                f"The panoptic annotations {metadata.panoptic_json} of '{dataset_name}' do not exist: load the "
                "data set first if it is built in, or correct its path."
            )
        content = read_panoptic_json(metadata.panoptic_json)
        categories = things_first(content["categories"])
        self.dataset_name = dataset_name
        self.class_names = [category["name"] for category in categories]
        self.is_thing = np.array([bool(category["isthing"]) for category in categories])
        self._truth = {each["image_id"]: each for each in content["annotations"]}
        self._root = Path(metadata.panoptic_root)
        of_kinds = panoptic_metadata(categories)
        self._classes = {
            **of_kinds["thing_dataset_id_to_contiguous_id"],
            **of_kinds["stuff_dataset_id_to_contiguous_id"],
        }
        self.reset()

    @property
    def result_names(self) -> list[str]:
        """Names of what `evaluate` returns, as a run writes them: "panoptic_seg/PQ" and so on."""
        return [f"{TASK}/{key}{kind}" for kind in ("", "_th", "_st") for key in ("PQ", "SQ", "RQ")]

    def reset(self) -> None:
        """Forget the segments of an earlier evaluation."""
        self._sums = np.zeros((len(self.class_names), 4))  # sum of IoU, TP, FP, FN

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Match the segments of a batch. Raise DatasetError for an image that the data set does not have, or of another
        size.
        """
        for given, output in zip(inputs, outputs, strict=True):
            if TASK not in output:
                raise ConfigError("The model's outputs have no panoptic_seg: set model.panoptic to a PanopticMerge.")
            truth = self._truth.get(given["image_id"])
            if truth is None:
                raise DatasetError(
                    f"The image {given['image_id']!r} is not one of the data set '{self.dataset_name}': evaluate the "
                    "data set that dataloader.test names."
                )
            found, segments = output[TASK]
            picture = read_picture(self._root / truth["file_name"])
            ids = np.asarray(found.cpu(), dtype=np.int64)
            if ids.shape != picture.shape:
                raise DatasetError(
                    f"The picture of segments {truth['file_name']} has the size {picture.shape}, but the output of its "
                    f"image {ids.shape} (height, width): complete the panoptic folder."
                )
            theirs = [{**s, "category_id": self._classes[s["category_id"]]} for s in truth["segments_info"]]
            self._sums += match_segments(ids, segments, picture, theirs, num_classes=len(self.class_names))

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Gather the counts of all processes and return {"panoptic_seg": {"PQ": percent, ...}}, also of things
        ("PQ_th") and stuff ("PQ_st"); {} on all but the main process. NaN stands where no class occurs.
        """
        gathered = comm.gather(self._sums)
        if not comm.is_main_process():
            return {}
        sums = np.sum(gathered, axis=0)
        kinds = {"": np.ones_like(self.is_thing), "_th": self.is_thing, "_st": ~self.is_thing}
        quality = {kind: mean_quality(sums[chosen]) for kind, chosen in kinds.items()}
        rows = [
            (label, *quality[kind], int(kinds[kind].sum()))
            for label, kind in (("all", ""), ("things", "_th"), ("stuff", "_st"))
        ]
        table = tabulate(rows, headers=["", "PQ", "SQ", "RQ", "classes"], tablefmt="pipe", floatfmt=".3f")
        logger.info("Panoptic quality on %s:\n%s", self.dataset_name, table)
        return {
            TASK: {
                f"{key}{kind}": value
                for kind, values in quality.items()
                for key, value in zip(("PQ", "SQ", "RQ"), values, strict=True)
            }
        }


def match_segments(
    found: np.ndarray,
    found_segments: Sequence[Mapping[str, Any]],
    truth: np.ndarray,
    true_segments: Sequence[Mapping[str, Any]],
    *,
    num_classes: int,
) -> np.ndarray:
    """Return the sum of IoU, the matches, false and missed segments of each class in one image: (K, 4).

    `found` and `truth` (H, W) are segment ids, 0 for none; the segments have `id`, `category_id` (0 to K - 1), and
    those of the truth `iscrowd`.
    """
    sums = np.zeros((num_classes, 4))
    pairs, overlaps = np.unique(np.stack([truth.ravel(), found.ravel()]), axis=1, return_counts=True)
    overlap = {(int(t), int(f)): int(n) for (t, f), n in zip(pairs.T, overlaps, strict=True)}
    area_of_truth, area_of_found = (dict(zip(*np.unique(x, return_counts=True), strict=True)) for x in (truth, found))
    true_class = {each["id"]: each["category_id"] for each in true_segments}
    crowd = {each["id"] for each in true_segments if each.get("iscrowd", 0)}
    found_class = {each["id"]: each["category_id"] for each in found_segments}
    matched: set[tuple[str, int]] = set()
    for (t, f), shared in overlap.items():
        if t not in true_class or t in crowd or found_class.get(f) != true_class[t]:
            continue
        union = area_of_truth[t] + area_of_found[f] - shared - overlap.get((_VOID, f), 0)
        if shared / union > _MATCHED:
            sums[true_class[t], :2] += shared / union, 1
            matched |= {("truth", t), ("found", f)}
    for f, label in found_class.items():
        ignored = sum(overlap.get((t, f), 0) for t in [_VOID, *(t for t in crowd if true_class[t] == label)])
        if ("found", f) not in matched and ignored <= _IGNORED * area_of_found.get(f, 0):
            sums[label, 2] += 1
    for t, label in true_class.items():
        if ("truth", t) not in matched and t not in crowd:
            sums[label, 3] += 1
    return sums


def mean_quality(sums: np.ndarray) -> tuple[float, float, float]:
    """Return PQ, SQ and RQ in percent, averaged over the classes of `sums` (K, 4) that occur."""
    iou, matches, false, missed = sums.T
    total = matches + false / 2 + missed / 2
    occurs = total > 0
    if not occurs.any():
        return float("nan"), float("nan"), float("nan")
    pq, rq = iou[occurs] / total[occurs], matches[occurs] / total[occurs]
    sq = iou[occurs] / np.maximum(matches[occurs], 1)
    return 100 * float(pq.mean()), 100 * float(sq.mean()), 100 * float(rq.mean())
