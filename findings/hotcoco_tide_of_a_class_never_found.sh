#!/usr/bin/env bash
# hotcoco 1.3.0: objects of a class that is never found lose no AP, neither as Miss nor as FN.
#
# Two classes with an object each; the one of the first class is found, the other has no detection. AP50 is 50, and the
# only error is the missed object, which tide_errors() counts. Yet correcting it is worth 0, and so is correcting all
# false negatives (FN): all types together explain nothing of the 50 points. With a second object of that class, which
# is found, the missed one is worth 24.8 points, all that AP50 is short of 100. tidecv 1.0.1 and vernier 0.5.4 say 50 in
# the first case. Seen on x86-64, Python 3.11:
#
#     1.3.0 AP50 50.0, missed objects 1, Miss 0.0, FN 0.0; with another object found: AP50 75.2, Miss 24.8, FN 24.8
#
# Exits 0 if that is still so, 1 if not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check hotcoco==1.3.0
cd "$folder"
"$folder/env/bin/python" - <<'PYTHON'
import json
import sys
from importlib.metadata import version

import hotcoco


def errors(objects, found):
    """Return what tide_errors() says of objects (class, box) and detections (class, score, box) of one image."""
    truth = {
        "images": [{"id": 1, "width": 500, "height": 500}],
        "categories": [{"id": 1, "name": "found"}, {"id": 2, "name": "never found"}],
        "annotations": [
            {"id": k, "image_id": 1, "category_id": label, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for k, (label, box) in enumerate(objects, 1)
        ],
    }
    results = [{"image_id": 1, "category_id": label, "score": score, "bbox": box} for label, score, box in found]
    for name, content in (("truth.json", truth), ("results.json", results)):
        with open(name, "w") as file:
            json.dump(content, file)
    truth = hotcoco.COCO("truth.json")
    evaluation = hotcoco.COCOeval(truth, truth.load_res("results.json"), "bbox")
    evaluation.evaluate()
    return evaluation.tide_errors()


a, b, c = ([100 * k, 0, 50, 50] for k in range(3))
never = errors([(1, a), (2, b)], [(1, 0.9, a)])
once = errors([(1, a), (2, b), (2, c)], [(1, 0.9, a), (2, 0.9, c)])
(base, miss, fn), (base_once, miss_once, fn_once) = (
    (round(100 * each["ap_base"], 1), *(round(100 * each["delta_ap"][name], 1) for name in ("Miss", "FN")))
    for each in (never, once)
)
count = never["counts"]["Miss"]
print(
    f"{version('hotcoco')} AP50 {base}, missed objects {count}, Miss {miss}, FN {fn}; "
    f"with another object found: AP50 {base_once}, Miss {miss_once}, FN {fn_once}"
)
sys.exit((base, count, miss, fn) != (50, 1, 0, 0) or miss_once < 20)
PYTHON
