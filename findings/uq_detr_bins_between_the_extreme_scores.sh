#!/usr/bin/env bash
# uq-detr 0.1.1: dece() and laece() divide the range of the scores into bins, not [0, 1].
#
# Expected calibration errors, these two included, are defined over equal bins of [0, 1] (25 of them: .04 wide). Here
# the first bin begins at the lowest score and the last ends at the highest, per class in laece(). Twenty detections of
# scores from .81 to .83, of which the lower half is right, lie in one bin of [0, 1], so that D-ECE is |.82 - .5| = .32;
# uq-detr says .51. One wrong detection more at score 0 and one right one at score 1, both without an error of their
# own, bring the bins to [0, 1] and the value to .29, which is .32 of 20 in 22. Values of two detectors, or of one
# before and after a threshold on scores, are of different bins. Seen on x86-64, Python 3.11:
#
#     0.1.1 D-ECE 0.51, with scores 0 and 1 in the set 0.29
#
# Exits 0 if that is still so, 1 if not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check uq-detr==0.1.1 numpy==2.2.6 scipy==1.15.3
"$folder/env/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
import uq_detr


def error(scores, right):
    """Return the D-ECE of detections of one image, those of `right` exactly on an object of their own."""
    boxes = np.array([[20.0 * k, 0, 20 * k + 10, 10] for k in range(len(scores))])
    labels = np.zeros(len(scores), dtype=int)
    found = uq_detr.Detections(boxes=boxes, scores=np.array(scores), labels=labels)
    truth = uq_detr.GroundTruth(boxes=boxes[right], labels=labels[right])
    return uq_detr.dece([found], [truth], tp_criterion="greedy", n_bins=25).score


scores, right = np.linspace(0.81, 0.83, 20).tolist(), np.arange(20) < 10
narrow = error(scores, right)
wide = error([*scores, 0.0, 1.0], np.r_[right, False, True])
print(f"{version('uq-detr')} D-ECE {narrow:.2f}, with scores 0 and 1 in the set {wide:.2f}")
sys.exit(not (narrow > 0.45 and abs(wide - 0.32 * 20 / 22) < 0.005))
PYTHON
