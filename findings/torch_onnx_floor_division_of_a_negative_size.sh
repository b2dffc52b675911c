#!/usr/bin/env bash
# PyTorch 2.14.1 with onnxscript 0.7.2: `-(-width // 4)`, the usual way to round a quotient up, is silently another number
# in an ONNX file of free width.
#
# torch.export keeps the negative number and the floor division as they are written. onnxscript translates Python's `//`
# of two sizes into ONNX's integer Div, which cuts towards zero, and says in its source that it is for positive numbers
# alone. Nothing is said at export, and onnxruntime runs the file: the quotient is rounded down. `(width + 3) // 4` is
# right. The program of torch.export is right in all widths. Seen on x86-64, Python 3.11, onnxruntime 1.32.0:
#
#     width 8: program 2, file 2
#     width 9: program 3, file 2
#     width 11: program 3, file 2
#     width 12: program 3, file 3
#
# Exits 0 if the file still differs for widths 9 and 11 and the other form does not, 1 if not. The install is about 6 GB.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.14.1 numpy==2.4.6 onnx==1.23.2 \
    onnxscript==0.7.2 onnxruntime==1.32.0
cat > "$folder/run.py" <<'PYTHON'
import sys
import warnings

import onnxruntime
import torch

warnings.simplefilter("ignore")


class Blocks(torch.nn.Module):
    """One column of ones per block of 4 columns, of which the last may be narrower."""

    def forward(self, x):
        return x.new_ones(x.shape[0], -(-x.shape[1] // 4))


class PositiveBlocks(Blocks):
    """The same without a negative number."""

    def forward(self, x):
        return x.new_ones(x.shape[0], (x.shape[1] + 3) // 4)


def columns(module):
    """Return the columns that the program and its file make of several widths."""
    free = {"x": {1: torch.export.Dim.DYNAMIC}}
    program = torch.export.export(module, (torch.rand(2, 8),), dynamic_shapes=free, strict=False)
    torch.onnx.export(program, dynamo=True, verbose=False).save("blocks.onnx")
    session = onnxruntime.InferenceSession("blocks.onnx", providers=["CPUExecutionProvider"])
    inputs = {width: torch.rand(2, width) for width in (8, 9, 11, 12)}
    return {
        width: (program.module()(x).shape[1], session.run(None, {"x": x.numpy()})[0].shape[1])
        for width, x in inputs.items()
    }


found = columns(Blocks())
for width, (program, file) in found.items():
    print(f"width {width}: program {program}, file {file}")
right = {8: (2, 2), 9: (3, 3), 11: (3, 3), 12: (3, 3)}
sys.exit(columns(PositiveBlocks()) != right or found != right | {9: (3, 2), 11: (3, 2)})
PYTHON
cd "$folder"
"$folder/env/bin/python" run.py
