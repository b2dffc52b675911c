#!/usr/bin/env bash
# tidecv 1.0.1: a class that is detected but has no object in the data set counts as AP 0 in the mean over classes.
#
# One object, found; beside it one detection of another class, of which the data set has no object (a split of a large
# data set, say). AP50 is 100 as COCO defines it: classes without objects are left out of the mean. tidecv says 50, and
# that 50 points are lost to background. Its numbers are of COCO's AP50 only where every detected class has an object.
# Seen on x86-64, Python 3.11:
#
#     1.0.1 AP50 50.0, Bkg 50.0; pycocotools 2.0.11 AP50 100.0
#
# Exits 0 if that is still so, 1 if not. The install is about 500 MB, for what tidecv imports.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
pip=("$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check)
"${pip[@]}" numpy==2.2.6 pycocotools==2.0.11 opencv-python-headless==4.12.0.88 pandas==2.3.3 seaborn==0.13.2 \
    matplotlib==3.10.9 appdirs==1.4.4
"${pip[@]}" --no-deps tidecv==1.0.1 # its opencv-python needs a display's libraries, the headless one does not
MPLBACKEND=agg "$folder/env/bin/python" - <<'PYTHON'
import contextlib
import io
import sys
from importlib.metadata import version

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tidecv import TIDE, Data

thing, elsewhere = [0, 0, 100, 100], [200, 0, 100, 100]
found = [(1, 0.5, thing), (2, 0.9, elsewhere)]

truth, results = Data("truth"), Data("results")
truth.add_image(1, "1.jpg")
for label, name in ((1, "thing"), (2, "other")):
    truth.add_class(label, name)
truth.add_ground_truth(1, 1, thing)
for label, score, box in found:
    results.add_detection(1, label, score, box)
tide = TIDE()
theirs = round(tide.evaluate(truth, results, mode=TIDE.BOX).ap, 1)
background = round(tide.get_main_errors()["results"]["Bkg"], 1)


def coco(rows):
    """Index rows (class, score, box) of the one image."""
    index = COCO()
    index.dataset = {
        "images": [{"id": 1}],
        "categories": [{"id": 1}, {"id": 2}],
        "annotations": [
            {"id": k, "image_id": 1, "category_id": label, "score": score, "bbox": box, "area": 10000, "iscrowd": 0}
            for k, (label, score, box) in enumerate(rows, 1)
        ],
    }
    index.createIndex()
    return index


with contextlib.redirect_stdout(io.StringIO()):
    evaluation = COCOeval(coco([(1, 1, thing)]), coco(found), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
reference = round(100 * float(evaluation.stats[1]), 1)
print(
    f"{version('tidecv')} AP50 {theirs}, Bkg {background}; pycocotools {version('pycocotools')} AP50 {reference}"
)
sys.exit((theirs, background, reference) != (50, 50, 100))
PYTHON
