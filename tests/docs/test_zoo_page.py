"""The page of the model zoo: a row per config, true sizes, and proofs that exist."""

import re
import sys

import pytest
import sizes
import torch
import zoo
from detectron2.config import instantiate

from align_detr import model_zoo
from align_detr.published import PUBLISHED_AP
from support.paths import PROJECT


def test_every_config_has_a_row() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|.*$", zoo.zoo_page(), re.MULTILINE)
    assert sorted(rows) == model_zoo.names()


def test_every_size_is_stored() -> None:
    """`python docs/site/sizes.py` writes them."""
    assert sorted(zoo.sizes()) == sorted(zoo.counts()) == model_zoo.names()


def test_a_row_says_what_is_published_and_what_proves_it() -> None:
    name = "align_detr/align_dino_r50_4scale_12ep.py"
    end = f"{PUBLISHED_AP[name]} | paper; manifest `align_detr_r50_dino` |"
    assert zoo.row(name) == f"| `{name}` | R50 | 12 | 47.6 | 278 (800x1280) | not run by us | {end}"
    assert "repository" in zoo.row("mr_detr/mr_dino_r50_4scale_12ep.py")


def test_files_of_the_proofs_exist() -> None:
    for _, _, tests in zoo.FAMILIES.values():
        assert all((PROJECT / zoo.test_file(name)).is_file() for name in tests)


def test_what_training_took_is_of_configs_that_were_run() -> None:
    """The figures of whole runs stand in the measurements; detectors for COCO were not trained."""
    assert set(zoo.TRAINED) <= set(model_zoo.names())
    text = (PROJECT / "benchmarks" / "RESULTS.md").read_text()
    for name in ("quickstart/demo.py", "quickstart/digits.py"):
        assert zoo.TRAINED[name] in zoo.row(name) and f"after {zoo.TRAINED[name].removesuffix(' on 2 cores')}" in text
    assert not any(name.endswith("ep.py") for name in zoo.TRAINED)


@pytest.mark.parametrize("name", ["quickstart/digits.py", "detr/detr_r50_500ep.py"])
def test_stored_parameters_are_still_right(name: str) -> None:
    assert sizes.parameters_of(name) == zoo.sizes()[name]


def test_multiply_adds_of_one_row_are_still_right() -> None:
    """A quarter of the sides has a sixteenth of DETR-R50's 86 x 10^9, but for what the decoder's 100 queries cost.

    That is, per layer, 6 products with 256 x 256 of both attentions and 2 with 256 x 2048: 0.87 x 10^9 in 6 layers.
    """
    sys.path.append(str(PROJECT / "benchmarks"))
    import flops

    model = instantiate(model_zoo.get_config("detr/detr_r50_500ep.py").model).eval()
    with torch.no_grad():
        counted = flops.count_flops(flops.Network(model), (200, 272))
    whole = float(zoo.multiply_adds()["detr/detr_r50_500ep.py"])
    assert counted == pytest.approx((whole - 0.87) / 16 + 0.87, rel=0.02) and whole == 86


def test_what_is_counted() -> None:
    """A linear layer of 3 to 4 numbers has 12 per token; a 3x3 convolution of 2 to 5 maps 90 per pixel; a sample 5 per
    point and channel: (1, 5, 2, 1, 4) weights of heads of 3 channels have 40 points.
    """
    with torch.device("meta"):
        linear, convolution = torch.nn.Linear(3, 4), torch.nn.Conv2d(2, 5, 3, padding=1)
        tokens, maps = torch.zeros(7, 3), torch.zeros(1, 2, 6, 8)
    assert sizes.counted(lambda: linear(tokens)) == pytest.approx(7 * 12 / 1e9)
    assert sizes.counted(lambda: convolution(maps)) == pytest.approx(6 * 8 * 90 / 1e9)
    assert sizes.sampling_flops((1, 99, 2, 3), None, None, (1, 5, 2, 1, 4)) == 2 * 5 * 40 * 3


def test_counts_are_still_right_and_near_those_with_norms() -> None:
    """PyTorch's counter on the meta device, and fvcore's trace in the measurements, which has the norms."""
    assert list(sizes.multiply_adds_of("quickstart/digits.py")) == list(zoo.counts()["quickstart/digits.py"])
    for name in ("dino/dino_r50_4scale_12ep.py", "dino/dino_r50_5scale_12ep.py"):
        adds, size = zoo.counts()[name]
        assert size == "800x1280" and adds == pytest.approx(float(zoo.multiply_adds()[name].split()[0]), rel=0.02)
