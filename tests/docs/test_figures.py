"""The figures of docs/figures: what they show is the code's, each is drawn by `make figures`, and a page shows it."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import architecture
import class_targets
import data_flow
import figure_files
import found
import matching_steps
import numpy as np
import pytest
import sampling_points
import torch
from data_flow import DETECTIONS, IMAGES, LOSSES, OBJECTS
from detectron2.config import instantiate
from matplotlib.figure import Figure
from PIL import Image
from scipy.optimize import linear_sum_assignment
from torch import nn

from align_detr import Detector
from align_detr.modeling.losses import IABCELoss, SigmoidFocalLoss
from support.paths import PROJECT
from support.shrink import small_model

FOLDER = PROJECT / "docs" / "figures"
SCRIPTS = sorted(path for path in FOLDER.glob("*.py") if "def main" in path.read_text())
DETR, DINO = architecture.CONFIGS
# the reading path of `DETR.predict` and `DETR.losses`; learned queries need the number of images alone
ONE_STAGE = {
    (IMAGES, "backbone"),
    ("backbone", "neck"),
    ("neck", "encoder"),
    ("encoder", "decoder"),
    ("queries", "decoder"),
    ("decoder", "head"),
    ("head", "criterion"),
    (OBJECTS, "criterion"),
    ("criterion", LOSSES),
    ("head", "postprocess"),
    ("postprocess", DETECTIONS),
}
TWO_STAGES = ONE_STAGE | {
    ("encoder", "proposals"),
    ("proposals", "queries"),
    ("proposals", "criterion"),
    (OBJECTS, "queries"),
}


def small(name: str) -> nn.Module:
    torch.manual_seed(0)
    return instantiate(small_model(name))


@pytest.mark.parametrize(("name", "expected"), [(DETR, ONE_STAGE), (DINO, TWO_STAGES)])
def test_arrows_are_the_reading_path(name: str, expected: set[tuple[str, str]]) -> None:
    arrows = {(arrow.source, arrow.target): arrow for arrow in data_flow.arrows_of(small(name))}
    assert set(arrows) == expected
    in_training = {key for key in expected if "criterion" in key or OBJECTS in key}
    assert {key for key, arrow in arrows.items() if not arrow.evaluation} == in_training
    assert {key for key, arrow in arrows.items() if not arrow.training} == {
        ("head", "postprocess"),
        ("postprocess", DETECTIONS),
    }
    assert arrows["queries", "decoder"].what == ("main" if name == DETR else "dn, main")
    assert arrows["backbone", "neck"].what == ("res5" if name == DETR else "res3, res4, res5")


@pytest.mark.parametrize("name", [DETR, DINO])
def test_the_diagram_shows_every_part_of_the_model(name: str) -> None:
    """The attributes that are modules, by their classes, and all parameters; the matching of the config among them."""
    model = small(name)
    parts = {part.role: part for part in data_flow.parts_of(model)}
    roles = ["backbone", "neck", "encoder", "proposals", "queries", "decoder", "head", "criterion", "postprocess"]
    assert list(parts) == [role for role in roles if getattr(model, role) is not None]
    assert all(part.kind == type(getattr(model, role)).__name__ for role, part in parts.items())
    assert sum(part.parameters for part in parts.values()) == sum(p.numel() for p in model.parameters())
    assert f"layers: 2 x {type(model.decoder.layers[0]).__name__}" in parts["decoder"].lines
    expected = "2 FocalCost + 5 L1Cost + 2 GIoUCost" if name == DINO else "1 SoftmaxCost + 5 L1Cost + 2 GIoUCost"
    assert f"    costs: {expected}" in parts["criterion"].lines
    assert ("    copies: main [3, 1], enc 3" in parts["criterion"].lines) == (name == DINO)
    figure = architecture.draw([architecture.Diagram(name, list(parts.values()), data_flow.arrows_of(model))])
    written = {text.get_text() for text in figure.axes[0].texts}
    assert {x for part in parts.values() for x in (part.role, part.kind, *part.lines)} <= written


def test_targets_and_pushes_of_the_losses() -> None:
    """At s = 0.5 and u = 0.7, by hand: t = s^0.25 u^0.75, and BCE's derivative by the logit is s - t; the focal loss
    -a (1 - s)^2 ln s has a (2 (1 - s) ln s - (1 - s)^2 / s) s (1 - s), with a = 0.25.
    """
    loss = class_targets.field_of(IABCELoss(), side=5)  # s and u are 0.1, 0.3, 0.5, 0.7, 0.9
    t = 0.5**0.25 * 0.7**0.75
    assert loss.target[2, 3] == pytest.approx(t, abs=1e-6) and loss.push[2, 3] == pytest.approx(t - 0.5, abs=1e-6)
    assert np.abs(np.diag(loss.push)).max() < 1e-6  # s = u is where the score stays
    focal = class_targets.field_of(SigmoidFocalLoss(), side=5)
    slope = 0.25 * (2 * 0.5 * math.log(0.5) - 0.25 / 0.5) * 0.25
    assert (focal.target == 1).all() and focal.push[2, 3] == pytest.approx(-slope, abs=1e-6)
    assert (focal.push > 0).all()


@pytest.fixture(scope="module")
def steps() -> matching_steps.Steps:
    """Of an image with two objects, by a small Align-DINO with random weights: 12 queries, k = 3."""
    model = small(DINO).eval()
    image = torch.randint(256, (3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    truth = [([10.0, 10.0, 40.0, 50.0], 0), ([50.0, 20.0, 90.0, 60.0], 2)]
    return matching_steps.steps_of(model, {"image": image, "truth": truth}, ["cell", "ring", "ghost"])


def test_matchings_are_the_cheapest(steps: matching_steps.Steps) -> None:
    """By SciPy on the drawn costs, with a column per copy of an object."""
    assert steps.cost.shape == (2, 12) and steps.names == ["cell", "ghost"] and steps.k == 3
    for pairs, copies in ((steps.one_to_one, 1), (steps.copies, 3)):
        cost = np.repeat(steps.cost, copies, axis=0)
        cheapest = cost[linear_sum_assignment(cost)].sum()
        assert sum(steps.cost[target, query] for query, target, _ in pairs) == pytest.approx(cheapest, rel=1e-5)
        assert len({query for query, _, _ in pairs}) == len(pairs) == 2 * copies
    weights = sorted(weight for _, target, weight in steps.copies if target == 0)
    assert weights == pytest.approx([math.exp(-2 / 1.5), math.exp(-1 / 1.5), 1.0], rel=1e-5)
    assert [weight for _, _, weight in steps.one_to_one] == [1.0, 1.0]


def test_points_of_fresh_weights_lie_where_the_paper_puts_them() -> None:
    """Two heads look to the right and to the left, point p at (p + 1) / 4 of half the reference's width."""
    layers = sampling_points.layers_of(small(DINO), torch.zeros(3, 128, 128))
    assert len(layers) == 2
    first = layers[0]
    x, y, width, _ = first.reference[:, None, None, None].unbind(-1)  # (Q, 1, 1, 1) each
    steps = torch.arange(1, 5) / 4 * width / 2  # (Q, 1, 1, P)
    right, left = first.locations.unbind(1)  # (Q, L, P, 2) each
    torch.testing.assert_close(right[..., 0], (x + steps)[:, 0].expand_as(right[..., 0]))
    torch.testing.assert_close(left[..., 0], (x - steps)[:, 0].expand_as(left[..., 0]))
    torch.testing.assert_close(first.locations[..., 1], y.expand_as(first.locations[..., 1]), atol=1e-6, rtol=0)
    assert torch.allclose(first.weights, torch.tensor(1 / 16))


def test_pictures_side_by_side(tmp_path: Path) -> None:
    """Two photos of 96 x 64 in a height of 32 are 48 wide each, and the gap is white."""
    for name, shade in (("a.png", 10), ("b.png", 200)):
        Image.new("RGB", (96, 64), (shade,) * 3).save(tmp_path / name)
    row = found.side_by_side([Image.open(tmp_path / name) for name in ("a.png", "b.png")], height=32, gap=4)
    assert row.size == (100, 32) and row.getpixel((49, 16)) == (255, 255, 255)
    assert row.getpixel((20, 16)) == (10, 10, 10) and row.getpixel((80, 16)) == (200, 200, 200)
    drawn = found.draw(Detector("digits", device="cpu"), [tmp_path / "a.png"])
    assert drawn.size == (round(96 * found.HEIGHT / 64), found.HEIGHT)


def figures(steps: matching_steps.Steps) -> dict[str, Callable[[], Figure]]:
    model = small(DINO)
    diagram = architecture.Diagram("small", data_flow.parts_of(model), data_flow.arrows_of(model))
    layers = sampling_points.layers_of(model, torch.zeros(3, 64, 64))
    return {
        "architecture": lambda: architecture.draw([diagram]),
        "class_targets": lambda: class_targets.draw(side=20),
        "matching_steps": lambda: matching_steps.draw(steps),
        "sampling_points": lambda: sampling_points.draw(np.zeros((64, 64, 3), np.uint8), layers, [0, 1]),
    }


def test_each_figure_is_written_twice_alike(steps: matching_steps.Steps, tmp_path: Path) -> None:
    for name, draw in figures(steps).items():
        for copy in ("a", "b"):
            figure_files.write(draw(), tmp_path / f"{name}_{copy}.png", dpi=40)
        first, second = ((tmp_path / f"{name}_{copy}.png").read_bytes() for copy in ("a", "b"))
        assert first.startswith(b"\x89PNG") and first == second, name


def test_make_figures_draws_each_and_a_page_shows_it() -> None:
    recipe = re.search(r"^figures: setup\n((?:\t.*\n)+)", (PROJECT / "Makefile").read_text(), re.MULTILINE)[1]
    pages = "".join(path.read_text() for path in [PROJECT / "README.md", *PROJECT.glob("docs/**/*.md")])
    for script in SCRIPTS:
        assert script.stem in recipe
        (picture,) = FOLDER.glob(f"{script.stem}.[pj][np]g")
        assert f"figures/{picture.name})" in pages and picture.stat().st_size < 150_000
    assert len(SCRIPTS) == len(list(FOLDER.glob("*.[pj][np]g"))) == 5
