"""TSP-FCOS as a whole: batches with and without objects, sizes, order, precision, registration."""

import math

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from torch.testing import assert_close

from align_detr.errors import ConfigError
from support.detectors import tiny_tsp_fcos
from support.inputs import image_input
from support.paths import PROJECT

LOSSES = {"loss_class", "loss_giou", "loss_centerness", "loss_class_dense"}
# Differently sized, two alike, wide and tall, one smaller than a cell of the coarsest level.
SIZES = [(96, 70), (64, 128), (96, 70), (23, 31), (128, 101)]


def inputs(counts: list[int]) -> list[dict]:
    torch.manual_seed(1)
    return [image_input(*size, num_objects=n) for size, n in zip(SIZES, counts, strict=False)]


@pytest.mark.parametrize(
    "counts",
    [[2, 0, 1], [0, 0], [0], [5, 5, 5, 5, 5], [40, 1]],
    ids=["one empty", "all empty", "single empty", "all sizes", "more objects than points"],
)
@pytest.mark.parametrize("num_queries", [20, 2000], ids=["some points", "all points"])
def test_every_parameter_gets_a_gradient(counts: list[int], num_queries: int) -> None:
    model = tiny_tsp_fcos(num_queries).train()
    losses = model(inputs(counts))
    assert losses.keys() == LOSSES
    sum(losses.values()).backward()
    for name, loss in losses.items():
        assert loss.dim() == 0 and torch.isfinite(loss), name
    for name, p in model.named_parameters():
        assert p.grad is not None and torch.isfinite(p.grad).all(), name
    assert (model.head.class_embed.bias.grad != 0).all() and (model.points.class_embed.bias.grad != 0).all()


def test_a_batch_without_objects_teaches_background() -> None:
    """The class loss is the focal loss of negatives only, 0.75 s^2 (-ln(1 - s)), divided by 2 x 1 + 0.2 x 1.

    With zero weights in the classifier, every score is the prior 0.01.
    """
    model = tiny_tsp_fcos(keep=(1.0, 1.0)).train()
    torch.nn.init.zeros_(model.head.class_embed.weight)
    torch.nn.init.zeros_(model.points.class_embed.weight)
    losses = model(inputs([0, 0]))
    negative = 0.75 * 0.01**2 * -math.log(0.99)
    assert_close(losses["loss_class"], torch.tensor(2 * 20 * 3 * negative / 2.2), rtol=1e-4, atol=0)
    points = 12 * 16 + 6 * 8 + 3 * 4  # 96 x 128 at strides 8, 16 and 32
    assert_close(losses["loss_class_dense"], torch.tensor(2 * points * 3 * negative), rtol=1e-4, atol=0)
    assert losses["loss_giou"] == 0 and losses["loss_centerness"] == 0


def test_order_of_images_does_not_change_losses() -> None:
    model, images = tiny_tsp_fcos(keep=(1.0, 1.0)).train(), inputs([3, 0, 2, 1, 4])
    there, back = model(images), model(images[::-1])
    for name, loss in there.items():
        assert_close(loss, back[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("counts", [[2, 0, 1], [0, 0]], ids=["objects", "none"])
def test_bfloat16(counts: list[int]) -> None:
    model, images = tiny_tsp_fcos(keep=(1.0, 1.0)).train(), inputs(counts)
    plain = model(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(images)
    for name, loss in half.items():
        assert loss.dtype == torch.float32
        assert_close(loss, plain[name], rtol=0.1, atol=0.02)
    sum(half.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


def test_boxes_stay_exact_under_autocast() -> None:
    """The corners of a box are whole distances away from its point, because boxes are computed in float32."""
    model = tiny_tsp_fcos().eval()
    images = [model.normalize(x["image"]) for x in inputs([0])]
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        points = model.extract_points(images)
        preds = model.predict(points, model.selection(points))
    assert preds.boxes.dtype == preds.distances.dtype == preds.logits.dtype == torch.float32
    d, fois = preds.distances[0] * preds.fois.strides[..., None], preds.fois
    expected = torch.cat([fois.locations - d[..., :2], fois.locations + d[..., 2:]], dim=-1)
    assert_close(preds.pixel_boxes(), expected)


def test_a_point_of_a_known_box_learns_it() -> None:
    """After sixty steps on one image, the box of its only object is found."""
    model, image = tiny_tsp_fcos(keep=(1.0, 1.0)), image_input(64, 64, 1)
    image["instances"].gt_boxes.tensor[:] = torch.tensor([[20.0, 12.0, 44.0, 52.0]])
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        sum(model.train()([image]).values()).backward()
        optimizer.step()
    with torch.no_grad():
        best = model.eval()([image])[0]["instances"][0]
    assert best.pred_classes == image["instances"].gt_classes[0]
    assert_close(best.pred_boxes.tensor, image["instances"].gt_boxes.tensor, atol=4.0, rtol=0)


def test_the_number_of_classes_is_set_in_one_place() -> None:
    cfg = LazyConfig.load(str(PROJECT / "projects/TSP/configs/tsp_fcos_digits.py"))
    LazyConfig.apply_overrides(cfg, ["model.head.num_classes=7"])
    model = instantiate(cfg.model)
    assert model.num_classes == 7 and model.points.class_embed.out_channels == 7
    LazyConfig.apply_overrides(cfg, ["model.points.num_classes=1"])
    model = instantiate(cfg.model).train()
    assert model.head.class_embed.out_features == 7 and model.points.class_embed.out_channels == 1
    losses = model([image_input(64, 64, 2, 7), image_input(64, 64, 0, 7)])
    assert losses.keys() == LOSSES and torch.isfinite(sum(losses.values()))


@pytest.mark.parametrize(
    "override, message",
    [
        ("model.assigner.sizes=[64]", "sizes has 1 bounds for the 3 levels"),
        ("model.encoding.num_levels=5", "model.encoding.num_levels is 5, but model.points has 3 levels"),
        ("model.head.num_levels=2", "model.head.num_levels is 2, but model.points has 3 levels"),
        ("model.points.strides=[8,16]", "has 3 in_features and 2 strides"),
        ("+model.criterion.matched.matcher.on_nonfinite=skip", 'matched.matcher.on_nonfinite is "skip"'),
    ],
)
def test_settings_that_do_not_fit_each_other(override: str, message: str) -> None:
    cfg = LazyConfig.load(str(PROJECT / "projects/TSP/configs/tsp_fcos_digits.py"))
    LazyConfig.apply_overrides(cfg, [override])
    with pytest.raises(ConfigError, match=message):
        instantiate(cfg.model)
