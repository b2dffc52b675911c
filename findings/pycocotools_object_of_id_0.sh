#!/usr/bin/env bash
# pycocotools 2.0.11: the object whose annotation has the id 0 is never found, and its detection counts as wrong.
#
# COCOeval notes the id of the matched annotation per detection, 0 for none. Files that number annotations from 0, as
# many converters write them, lose one object: nothing is raised, and AP is too low, the more the fewer objects a class
# has. One image, one object, one detection that is exactly it:
#
#     annotation id 1: AP 100.0, annotation id 0: AP 0.0
#
# Exits 0 if that is still so, 1 if not. The install is about 60 MB.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check pycocotools==2.0.11 numpy==2.4.6
"$folder/env/bin/python" - <<'PYTHON'
import contextlib
import io
import sys

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def precision(number):
    """Return the AP in percent of a detector that finds the only object, of an annotation with the id `number`."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": 1}],
            "categories": [{"id": 1}],
            "annotations": [
                {"id": number, "image_id": 1, "category_id": 1, "bbox": [0, 0, 50, 50], "area": 2500, "iscrowd": 0}
            ],
        }
        truth.createIndex()
        found = truth.loadRes([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 50, 50], "score": 0.9}])
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return 100 * float(evaluation.stats[0])


one, zero = precision(1), precision(0)
print(f"annotation id 1: AP {one:.1f}, annotation id 0: AP {zero:.1f}")
sys.exit(not (one > 99.9 and zero == 0))
PYTHON
