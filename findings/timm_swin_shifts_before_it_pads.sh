#!/usr/bin/env bash
# timm 1.0.31: at sizes that are no multiple of the window, Swin's shifted windows can join an image's top to its bottom.
#
# A shifted block rolls the map by half a window, pads it to a multiple of the window, and masks windows by the padded
# size. Rows that the roll takes from the top to the end then lie before the padding, not behind it, and the mask, which
# separates the last rows of the padded map, misses them. The authors' code for detection and torchvision pad first. At
# 224 or 384 pixels, as in classification, nothing is padded and all agree; with dynamic_img_size=True nothing is raised.
#
# Two blocks, windows of 4 tokens, 9 rows of tokens: the last row may depend on rows 4 to 8. The top four are changed:
#
#     timm 1.0.31: 9 rows: the last row changes, 12 rows: it does not; torchvision 0.29.1: 9 rows: it does not
#
# Exits 0 if that is still so and 1 if not. The install is about 6 GB.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check \
    torch==2.14.1 torchvision==0.29.1 numpy==2.4.6 timm==1.0.31
OMP_NUM_THREADS=1 "$folder/env/bin/python" - <<'PYTHON'
import sys

import timm
import torch
import torchvision

sizes = dict(embed_dim=8, depths=[2, 1, 1, 1], num_heads=[1, 1, 1, 1])
of_timm = timm.create_model("swin_tiny_patch4_window7_224", window_size=4, dynamic_img_size=True, **sizes).eval()
of_torchvision = torchvision.models.SwinTransformer(patch_size=[4, 4], window_size=[4, 4], **sizes).eval()


def first_stage_of_timm(image):
    return of_timm.layers[0](of_timm.patch_embed(image))


def changes(stage, rows):
    """Whether row 8 of a map changes with the top four, by more than rounding."""
    torch.manual_seed(0)
    image = torch.randn(1, 3, 4 * rows, 4 * rows)
    other = image.clone()
    other[:, :, :16] = torch.randn(1, 3, 16, 4 * rows)
    with torch.no_grad():
        return bool((stage(image)[:, 8] - stage(other)[:, 8]).abs().max() > 1e-6)


def words(changed):
    return "the last row changes" if changed else "it does not"


nine, twelve = changes(first_stage_of_timm, 9), changes(first_stage_of_timm, 12)
reference = changes(of_torchvision.features[:2], 9)
print(
    f"timm {timm.__version__}: 9 rows: {words(nine)}, 12 rows: {words(twelve)}; "
    f"torchvision {torchvision.__version__.partition('+')[0]}: 9 rows: {words(reference)}"
)
sys.exit(not (nine and not twelve and not reference))
PYTHON
