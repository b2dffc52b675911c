"""AP50 lost by each type of error: by hand, against plain loops, and against hotcoco where the definitions agree."""

import json

import numpy as np
import pytest

from align_detr.analysis.errors import ErrorTypes
from align_detr.analysis.matching import AREAS
from align_detr.analysis.precision import PrecisionCurves
from support.results import draw_results, with_copies
from support.worked import coco_dictionaries, once, overlap, write_results

FIRST, SECOND, THIRD, FOURTH = ([100 * k, 0, 10, 10] for k in range(4))
ELSEWHERE = [50, 50, 10, 10]
NONE = dict.fromkeys(("error_cls", "error_loc", "error_both", "error_dupe", "error_bkg", "error_miss"), 0.0)

# one object, found at .5 behind one wrong detection: AP50 is 50, and 100 without the wrong one
FOUND = (0, 0, 0.5, FIRST)
OF_ONE = {
    "error_dupe": [FOUND, (0, 0, 0.4, FIRST)],  # behind it: loses nothing
    "error_bkg": [FOUND, (0, 0, 0.9, ELSEWHERE)],
    "error_both": [FOUND, (0, 1, 0.9, [0, 0, 10, 4])],  # its class has no object: loses nothing
    "error_loc": [FOUND, (0, 0, 0.9, [0, 0, 10, 4])],
}


def measure(results):
    return ErrorTypes(results)(once(results))


@pytest.mark.parametrize(("name", "found"), OF_ONE.items(), ids=OF_ONE)
def test_one_wrong_detection_beside_the_right_one(name, found):
    values = measure(write_results([(0, 0, FIRST)], found, classes=2))
    lost = 50.0 if name in ("error_bkg", "error_loc") else 0.0
    assert values.overall == pytest.approx(NONE | {name: lost})


def test_worked_example():
    """Class 0 has an object found at .8 and one placed badly at .9, so that its precision is 1/2 up to recall 1/2.

    That makes AP50 51/101 of 50; with the place corrected, 100. Class 1 has an object called class 0 at .7, which
    stands behind all in class 0, and one missed: AP50 is 0; with the class corrected, 51/101 of 100. An object less
    changes nothing where none is found.
    """
    objects = [(0, 0, FIRST), (0, 0, SECOND), (0, 1, THIRD), (0, 1, FOURTH)]
    found = [(0, 0, 0.8, FIRST), (0, 0, 0.9, [100, 0, 10, 4]), (0, 0, 0.7, THIRD)]
    values = measure(write_results(objects, found, classes=3))
    per_class = {name: values.per_class[name][:2].tolist() for name in NONE}
    half = 100 * 51 / 101
    nothing = dict.fromkeys(NONE, [0, 0])
    assert per_class == {name: pytest.approx(each) for name, each in nothing.items()} | {
        "error_loc": pytest.approx([100 - half / 2, 0]),
        "error_cls": pytest.approx([0, half]),
    }
    assert values.overall == pytest.approx(NONE | {"error_loc": 50 - half / 4, "error_cls": half / 2})
    assert np.isnan(values.per_class["error_cls"][2])


def test_only_the_best_of_the_errors_of_an_object_is_corrected():
    """The badly placed one of .9 stands for the object: without errors of class, nothing is right."""
    objects, found = [(0, 0, FIRST)], [(0, 0, 0.9, [0, 0, 10, 4]), (0, 1, 0.8, FIRST)]
    values = measure(write_results(objects, found, classes=2))
    assert values.overall == pytest.approx(NONE | {"error_loc": 100})


@pytest.mark.parametrize(("found", "lost"), [([], 100), ([(0, 0, 0.9, FIRST)], 100 * 50 / 101)], ids=["all", "one"])
def test_missed_objects(found, lost):
    """Of two objects, both or one; precision is 1 up to recall 1/2, which 51 of 101 levels do not exceed."""
    values = measure(write_results([(0, 0, FIRST), (0, 0, SECOND)], found))
    assert values.overall == pytest.approx(NONE | {"error_miss": lost})


def precision_plainly(rows, objects):
    """Return AP50 in percent of rows (score, whether right), best first."""
    right, points = 0, []
    for number, (_, is_right) in enumerate(rows, 1):
        right += is_right
        points.append((right / objects, right / number))
    recalls = np.linspace(0, 1, 101)  # as pycocotools has them, to the last bit
    levels = [max((precision for recall, precision in points if recall >= r), default=0) for r in recalls]
    return 100 * sum(levels) / 101


def classify_plainly(results, matching, k):
    """Return the type of a false positive and its object."""
    found, objects = results.detections, results.truth.objects
    same, other = [(0, 0)], [(0, 0)]
    for g in np.flatnonzero((objects.image == found.image[k]) & ~objects.crowd):
        side = same if objects.label[g] == found.label[k] else other
        side.append((overlap(found.box[k], objects.box[g]), -g))
    (iou, of), (apart, wrong_of) = max(same), max(other)
    if 0.1 <= iou < 0.5:
        return "error_loc", -of
    if apart >= 0.5:
        return "error_cls", -wrong_of
    if iou >= 0.5:
        return "error_dupe", None
    return ("error_bkg" if max(iou, apart) <= 0.1 else "error_both"), None


def lose_plainly(results, area):
    """Return the AP50 lost per class by each type."""
    matching, truth, found = results.matching_of(area), results.truth, results.detections
    counts, label = matching.object_counts, truth.objects.label
    taken = set(matching.at[0].object.tolist())
    wrong = {k: classify_plainly(results, matching, k) for k in np.flatnonzero(matching.false_positives(0)).tolist()}
    correctable = {k: g for k, (_, g) in wrong.items() if g is not None and counts[g] and g not in taken}
    best = {}
    for k in sorted(correctable, key=lambda k: (-found.score[k], found.entry[k])):
        best.setdefault(correctable[k], k)
    missed = [g for g in np.flatnonzero(counts) if g not in taken and g not in best]

    def average_precision(label_of_rows, corrected, without):
        rows = [(k, found.score[k], 0, True) for k in matching.at[0].true_positives().detection.tolist()]
        rows = [row for row in rows if found.label[row[0]] == label_of_rows]
        for k, (kind, _) in wrong.items():
            if kind != corrected and found.label[k] == label_of_rows:
                rows.append((k, found.score[k], 0, False))
        for g, k in best.items():
            if wrong[k][0] == corrected and label[g] == label_of_rows:
                rows.append((k, found.score[k], corrected == "error_cls", True))
        rows.sort(key=lambda row: (-row[1], row[2], row[0]))
        objects = int((counts & (label == label_of_rows)).sum()) - without
        return precision_plainly([(score, is_right) for _, score, _, is_right in rows], objects) if objects else 100

    table = {name: np.full(truth.num_classes, np.nan) for name in NONE}
    for of in np.unique(label[counts]).tolist():
        now = average_precision(of, None, 0)
        for name in NONE:
            without = sum(label[g] == of for g in missed) if name == "error_miss" else 0
            table[name][of] = average_precision(of, name, without) - now
    return table


def test_is_what_plain_loops_find():
    """Crowds, ties, sizes and few detections, also under copies of images, where ties have another order."""
    for seed, options in enumerate([dict(max_detections=9), dict(tied=True), dict()]):
        results = draw_results(seed, images=6, classes=4, objects=40, detections=150, **options)
        copies = np.random.default_rng(seed).multinomial(6, [1 / 6] * 6)
        sets = [(once(results), results), (copies, with_copies(results, copies))]
        for drawn, whole in sets[:1] if "tied" in options else sets:
            for area in AREAS:
                values = ErrorTypes(results, results.matching_of(area))(drawn)
                for name, expected in lose_plainly(whole, area).items():
                    np.testing.assert_allclose(values.per_class[name], expected, rtol=0, atol=1e-9, err_msg=name)
                    assert values.overall[name] == pytest.approx(np.nanmean(expected), abs=1e-9)


def test_agrees_with_hotcoco(tmp_path):
    """Without crowds, whose overlaps hotcoco takes for those of objects."""
    hotcoco = pytest.importorskip("hotcoco")
    for seed in range(2):
        results = draw_results(seed, images=6, classes=3, objects=40, detections=200)
        results.truth.objects.crowd[:] = False
        results.detections.box[:, 2:] = np.maximum(results.detections.box[:, 2:], 1)
        for name, content in zip(("truth", "found"), coco_dictionaries(results), strict=True):
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        truth = hotcoco.COCO(str(tmp_path / "truth.json"))
        evaluation = hotcoco.COCOeval(truth, truth.load_res(str(tmp_path / "found.json")), "bbox")
        evaluation.evaluate()
        theirs = evaluation.tide_errors()
        ours = measure(results).overall
        assert {
            name: ours[f"error_{name.lower()}"] / 100 for name in ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
        } == (pytest.approx({name: theirs["delta_ap"][name] for name in ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")}))
        curves = PrecisionCurves(results.truth, results.detections, results.matching)(once(results))
        assert curves[0].mean() == pytest.approx(theirs["ap_base"])
