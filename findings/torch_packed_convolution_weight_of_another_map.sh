#!/usr/bin/env bash
# PyTorch 2.14.1, CPU: a convolution weight that was packed without a map's size is packed anew in every call, and that
# takes several times as long as the convolution.
#
# `mkldnn_reorder_conv2d_weight` packs a weight for `mkldnn::_convolution_pointwise` (the operators of
# torch.compile's frozen graphs). The size of the input is optional. On processors with AVX2 as the highest instruction
# set, oneDNN chooses the block of output channels by map size and number of threads: with two threads, 512 channels are
# packed in blocks of 32, and read in blocks of 24 for a map of 15x20. From one block to another oneDNN has its reference
# reorder alone ("simple:any"), in each call; from the unpacked weight it has a compiled one. So the unpacked weight is
# the fast one. Results are right in all cases. Seen on x86-64 (AMD EPYC, AVX2), Python 3.11, two threads:
#
#     2.14.1: packed without a size 112 ms (reorder simple:any), for this size 10 ms, not packed 13 ms
#
# ONEDNN_MAX_CPU_ISA=AVX2 is set for processors with AVX-512, of which none was tried. Exits 0 if that reorder still runs and
# a packed weight takes at least twice as long as one that is not, 1 if not. The install is about 6 GB.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.14.1 numpy==2.4.6
cat > "$folder/run.py" <<'PYTHON'
import sys
import time

import torch

torch.set_num_threads(2)
torch.manual_seed(0)
conv = torch.nn.Conv2d(512, 512, 3, padding=1)
image = torch.randn(1, 512, 15, 20).contiguous(memory_format=torch.channels_last)
place = [1, 1], [1, 1], [1, 1], 1  # padding, stride, dilation, groups


def packed(size):
    """Return the weight in oneDNN's layout for a map of `size`, or of none."""
    return torch._C._nn.mkldnn_reorder_conv2d_weight(conv.weight.detach().to_mkldnn(), *place, size)


def milliseconds(weight):
    """Return the least time of ten calls, whose result is checked."""
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        found = torch.ops.mkldnn._convolution_pointwise(image, weight, conv.bias, *place, "none", [], "")
        best = min(best, time.perf_counter() - start)
    assert torch.allclose(found, conv(image), atol=1e-4)
    return 1000 * best


with torch.inference_mode():
    ways = packed(None), packed([1, 512, 15, 20]), conv.weight.contiguous(memory_format=torch.channels_last)
    none, this, plain = map(milliseconds, ways)
print(f"{torch.__version__}: packed without a size {none:.0f} ms, for this size {this:.0f} ms, not packed {plain:.0f} ms")
sys.exit(none < 2 * plain)
PYTHON
export ONEDNN_MAX_CPU_ISA=AVX2
"$folder/env/bin/python" "$folder/run.py"
ONEDNN_VERBOSE=1 "$folder/env/bin/python" "$folder/run.py" > "$folder/verbose.txt"
grep -m1 -o "reorder,simple:any,.*Acdb32a.*Acdb24a[^,]*" "$folder/verbose.txt"
