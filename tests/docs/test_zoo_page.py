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
    assert sorted(zoo.sizes()) == model_zoo.names()


def test_a_row_says_what_is_published_and_what_proves_it() -> None:
    name = "align_detr/align_dino_r50_4scale_12ep.py"
    end = f"{PUBLISHED_AP[name]} | paper; manifest `align_detr_r50_dino` |"
    assert zoo.row(name) == f"| `{name}` | R50 | 12 | 47.6 | 278 (800x1280) | {end}"
    assert "repository" in zoo.row("mr_detr/mr_dino_r50_4scale_12ep.py")


def test_files_of_the_proofs_exist() -> None:
    for _, _, tests in zoo.FAMILIES.values():
        assert all((PROJECT / zoo.test_file(name)).is_file() for name in tests)


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
