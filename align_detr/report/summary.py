"""The numbers of a report in plain sentences: what was found, and what to do."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from align_detr.analysis.bootstrap import FEW_IMAGES
from align_detr.report.metrics import ERRORS, counted, metric_of, number, percent

Detector = Mapping[str, Any]
Report = Mapping[str, Any]
_COMPARED = ("AP75", "recall_best_regressed", "pearson", "oracle_gap", "olrp", "lace", "duplicates_50")
_PERSONS = ("Pearson", "Spearman")
_GAP = 1.0  # points of AP from which on scores are worth the effort
_DUPLICATES = 0.02  # per object
_CALIBRATION = 0.01  # of LaECE that recalibration takes away


def findings(report: Report) -> list[str]:
    """Return what was found: AP, the differences, then the alignment; one sentence for all detectors."""
    detectors = report["detectors"]
    return [
        _lead(report),
        *(sentence for each in report.get("differences") or () for sentence in _difference(each)),
        *_one(
            "With perfect scores (the IoU for the best box of each object, 0 for all others) the same boxes would "
            "have {}.",
            detectors,
            _ceiling,
        ),
        *_one(
            "The best box of an object is among the N most confident of its image, which has N objects, for {} of the "
            "objects.",
            detectors,
            _recall,
        ),
        *_one("Pearson's correlation of score and IoU of matched detections, at best 1, is {}.", detectors, _pearson),
        *_one("The costliest error is {}.", detectors, _worst_error),
    ]


def advice(report: Report) -> list[str]:
    """Return what to do, one sentence per remedy that the numbers speak for."""
    detectors = report["detectors"]
    return [
        *_one(
            "Keep detections from the recommended threshold of their class on: false detections, misses and inexact "
            "boxes together are fewest there. The table of classes has the thresholds, the median is {}.",
            detectors,
            _threshold,
        ),
        *_one(
            "Scores that are the IoU would rank these boxes better, by {} of AP: a loss that teaches the score the "
            "IoU, such as that of Align-DETR, aims at this gap.",
            detectors,
            _gap,
        ),
        *_one(
            "Recalibrate before a score is read as quality: isotonic regression lowers LaECE {}, and keeps the order "
            "within a class.",
            detectors,
            _recalibration,
        ),
        *_one(
            "{} duplicates per 100 objects remain at these thresholds: non-maximum suppression at IoU .5 would remove "
            "most of them.",
            detectors,
            _duplicates,
        ),
        *_one(
            "Look at the confident detections on no object, some of which may be objects that nobody labelled; the "
            "JSON lists {}.",
            detectors,
            _unmatched,
        ),
    ]


def enumerated(texts: Sequence[str]) -> str:
    """Return texts as "a", "a and b" or "a, b and c"."""
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def _one(sentence: str, detectors: Sequence[Detector], fact: Callable[[Detector], str | None]) -> list[str]:
    """Return a sentence with the fact of each detector that has one; [] if none has."""
    facts = [(each["name"], text) for each in detectors if (text := fact(each)) is not None]
    if not facts:
        return []
    if len(detectors) == 1:
        return [sentence.format(facts[0][1])]
    return [sentence.format(enumerated([f"{text} ({name})" for name, text in facts]))]


def _lead(report: Report) -> str:
    truth, detectors = report["ground_truth"], report["detectors"]
    where = f"on {counted(truth['images'], 'image')} with {counted(truth['objects'], 'object')} of " + counted(
        len(truth["classes"]), "class"
    )
    known = [each for each in detectors if each["overall"].get("AP") is not None]
    if not known:
        return f"There is no AP {where}: no class has objects."
    if len(detectors) == 1:
        overall = known[0]["overall"]
        return (
            f"{known[0]['name']} has AP {_value('AP', overall)} {where} (AP50 {_value('AP50', overall)}, "
            f"AP75 {_value('AP75', overall)})."
        )
    ranked = sorted(known, key=lambda each: -each["overall"]["AP"])
    best = _value("AP", ranked[0]["overall"])
    leaders = [each["name"] for each in ranked if _value("AP", each["overall"]) == best]
    others = "".join(f"; {each['name']} {_value('AP', each['overall'])}" for each in ranked[len(leaders) :])
    return f"{enumerated(leaders)} {'has' if len(leaders) == 1 else 'have'} the highest AP, {best}, {where}{others}."


def _difference(difference: Mapping[str, Any]) -> list[str]:
    """Return the sentence on AP, and one on what else differs by more than noise."""
    sentences = [difference["sentence"]]
    beyond = []
    for name in _COMPARED:
        if _is_beyond_noise(difference, name):
            metric = metric_of(name)
            size = metric.format_difference(difference["metrics"][name]["difference"])
            beyond.append(f"{in_sentence(metric.label)} ({size})")
    if beyond:
        names = f"{difference['of']} and {difference['over']}"
        also = "also " if _is_beyond_noise(difference, "AP") else ""
        sentences.append(f"{names} {also}differ by more than noise in {enumerated(beyond)}.")
    return sentences


def _is_beyond_noise(difference: Mapping[str, Any], name: str) -> bool:
    found = difference["metrics"].get(name) or {}
    low, high = found.get("low"), found.get("high")
    return low is not None and high is not None and not low <= 0 <= high and difference["images"] >= FEW_IMAGES


def in_sentence(label: str) -> str:
    """Return a label with a small first letter, unless that is a name or an abbreviation."""
    first = label.split()[0]
    return label if first in _PERSONS or not first[1:].islower() else label[0].lower() + label[1:]


def _ceiling(detector: Detector) -> str | None:
    overall = detector["overall"]
    if overall.get("ceiling_AP") is None or overall.get("AP") is None:
        return None
    return f"AP {_value('ceiling_AP', overall)} instead of {_value('AP', overall)}"


def _recall(detector: Detector) -> str | None:
    overall = detector["overall"]
    if overall.get("recall_best_regressed") is None:
        return None
    return _value("recall_best_regressed", overall)


def _pearson(detector: Detector) -> str | None:
    value = detector["overall"].get("pearson")
    return None if value is None else number(value, 2)


def _worst_error(detector: Detector) -> str | None:
    errors = {name: value for name in ERRORS if (value := detector["overall"].get(name))}
    if not errors:
        return None
    worst = max(errors, key=errors.__getitem__)
    return f"“{metric_of(worst).label.removeprefix('Error: ')}” with {_value(worst, errors)} of AP50"


def _threshold(detector: Detector) -> str | None:
    known = [value for value in detector.get("thresholds") or () if value is not None]
    return number(median(known), 2) if known else None


def _gap(detector: Detector) -> str | None:
    value = detector["overall"].get("oracle_gap")
    return number(value, 1) if value is not None and value >= _GAP else None


def _recalibration(detector: Detector) -> str | None:
    before, after = (detector["overall"].get(name) for name in ("lace", "lace_recalibrated"))
    if before is None or after is None or before - after < _CALIBRATION:
        return None
    return f"from {percent(before)} to {percent(after)}"


def _duplicates(detector: Detector) -> str | None:
    value = detector["overall"].get("duplicates_70")
    return number(100 * value, 0) if value is not None and value >= _DUPLICATES else None


def _unmatched(detector: Detector) -> str | None:
    found = len(detector.get("unmatched") or ())
    return str(found) if found else None


def _value(name: str, overall: Mapping[str, float | None]) -> str:
    return metric_of(name).format(overall.get(name))
