#!/usr/bin/env bash
# PyTorch 2.14.1, CPU: the weight gradient of a bfloat16 convolution holds unset memory where the map is one value wide.
#
# A 3x3 convolution of stride 2 and padding 1 on a map of width 1 (the coarsest level of a feature pyramid of a narrow
# photo) meets padding alone with the left and right columns of its kernel, so that their gradient is exactly 0. In
# bfloat16, as a module's type and under autocast, anything may stand there: NaN, or numbers up to 1e38. Nothing is
# raised, the loss is finite, and float32, stride 1 and a width of 2 are right; so are all of them with
# torch.backends.mkldnn off. Seen on x86-64 with AVX512_BF16 (AMD EPYC), Python 3.11, one thread:
#
#     2.14.1 float32: 0 of 20 wrong, bfloat16: 17 of 20 wrong, bfloat16 without mkldnn: 0 of 20 wrong
#
# The count varies between runs, as unset memory does. Exits 0 if that is still so (some of 20 wrong), 1 if not, and 77
# on a processor without AVX512_BF16, where it was not tried. The install is about 6 GB.
set -euo pipefail
grep -q avx512_bf16 /proc/cpuinfo || { echo "skipped: this processor has no AVX512_BF16"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.14.1 numpy==2.4.6
OMP_NUM_THREADS=1 "$folder/env/bin/python" - <<'PYTHON'
import sys

import torch


def wrong(dtype, mkldnn):
    """Count the trials, of 20, in which a column that meets padding alone has a gradient other than 0."""
    count = 0
    for seed in range(20):
        torch.manual_seed(seed)
        conv = torch.nn.Conv2d(16, 16, kernel_size=3, stride=2, padding=1).to(dtype)
        image = torch.randn(2, 16, 5, 1).to(dtype)
        with torch.backends.mkldnn.flags(enabled=mkldnn):
            conv(image).float().sum().backward()
        outer = conv.weight.grad[..., [0, 2]]
        count += int(not bool((outer == 0).all()))
    return count


full, half, plain = wrong(torch.float32, True), wrong(torch.bfloat16, True), wrong(torch.bfloat16, False)
version = torch.__version__.partition("+")[0]
print(
    f"{version} float32: {full} of 20 wrong, bfloat16: {half} of 20 wrong, "
    f"bfloat16 without mkldnn: {plain} of 20 wrong"
)
sys.exit(not (full == 0 and half > 0 and plain == 0))
PYTHON
