"""The worst misaligned cases, for a gallery (the Align-DETR paper's figure B)."""

from typing import Any

import numpy as np

from align_detr.analysis.overlaps import Overlaps
from align_detr.analysis.results import Results
from align_detr.analysis.samples import best_object, best_regressed

FOREGROUND = 0.3
"""IoU from which a detection may be meant for an object."""


def list_misaligned(results: Results, *, limit: int = 50) -> list[dict[str, Any]]:
    """Return the objects whose most confident sample fits them far worse than their best-regressed one, worst first.

    The most confident sample of an object is the one of the highest score of those detections of its class that overlap
    no other object more, and this one by an IoU of at least FOREGROUND. A case has a best-regressed sample of a lower
    score and a larger IoU; `gap` is the IoU that is lost. Entries: image_id, file_name, class, object (its box), gap,
    and of `best` and `confident` the box, score, iou and rank (from 1) among the detections of the image. Equal gaps
    stand by the loss of score, then by object.
    """
    truth, found = results.truth, results.detections
    best, confident = _pairs_of_objects(results)
    gap = best.iou - confident.iou
    loss = found.score[confident.detection] - found.score[best.detection]
    order = np.lexsort((best.object, -loss, -gap))
    order = order[(gap[order] > 0) & (loss[order] > 0)][:limit]
    cases = []
    for index in order.tolist():
        one = int(best.object[index])
        image = int(truth.objects.image[one])
        cases.append(
            {
                "image_id": truth.image_ids[image],
                "file_name": truth.file_names[image],
                "class": truth.class_names[int(truth.objects.label[one])],
                "object": truth.objects.box[one].tolist(),
                "best": _sample(results, best, index),
                "confident": _sample(results, confident, index),
                "gap": float(gap[index]),
            }
        )
    return cases


def _pairs_of_objects(results: Results) -> tuple[Overlaps, Overlaps]:
    """Return the best-regressed and the most confident sample of those objects that have both."""
    best = best_regressed(results)
    of, iou = best_object(results)
    meant = np.flatnonzero(iou >= FOREGROUND)
    objects, first = np.unique(of[meant], return_index=True)  # by class and falling score: the first is most confident
    _, left, right = np.intersect1d(best.object, objects, assume_unique=True, return_indices=True)
    meant = meant[first[right]]
    return best.select(left), Overlaps(meant, of[meant], iou[meant])


def _sample(results: Results, pairs: Overlaps, index: int) -> dict[str, Any]:
    detection = int(pairs.detection[index])
    return {
        "box": results.detections.box[detection].tolist(),
        "score": float(results.detections.score[detection]),
        "iou": float(pairs.iou[index]),
        "rank": int(results.rank_in_image[detection]) + 1,
    }
