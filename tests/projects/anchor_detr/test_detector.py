"""A small Anchor-DETR from images to losses and detections: batches, empty images, half precision."""

import pytest
import torch
from detectron2.config import instantiate
from torch.testing import assert_close

from align_detr import model_zoo
from align_detr.projects.anchor_detr import AnchorDETR
from align_detr.structures import Predictions
from support.inputs import image_input

CONFIGS = [
    "AnchorDETR/anchor_detr_r50_50ep.py",
    "AnchorDETR/anchor_detr_r50_mha_50ep.py",
    "AnchorDETR/align_anchor_detr_r50_50ep.py",
]


def tiny(config: str, *, norm_padding: bool = False) -> AnchorDETR:
    """Build the config's detector with 16 channels, 2 + 2 layers, 3 classes and 5 points with 2 patterns."""
    torch.manual_seed(0)
    model = model_zoo.get_config(config).model
    model.backbone.depth, model.neck.in_channels = 18, 512
    for part in (model.neck, model.neck.position, model.queries, model.head, model.encoder.layer, model.decoder.layer):
        part.embed_dim = 16
    for stack in (model.encoder, model.decoder):
        stack.num_layers, stack.layer.num_heads, stack.layer.ffn_dim = 2, 2, 32
    if model.criterion.matcher.get("copies"):
        model.criterion.matcher.copies.main = [3, 1]
    model.queries.num_queries, model.queries.num_patterns, model.head.num_classes = 5, 2, 3
    model.neck.num_groups, model.neck.norm_padding = 4, norm_padding
    detector = instantiate(model)
    torch.nn.init.normal_(detector.head.bbox_embed.layers[-1].weight)  # boxes that depend on what was decoded
    return detector


@torch.no_grad()
def predict(detector: AnchorDETR, batch: list[dict]) -> Predictions:
    images = [detector.normalize(x["image"]) for x in batch]
    return detector.predict(detector.encoder(detector.extract_features(images)))["main"]


@pytest.mark.parametrize("config", CONFIGS[:2])
def test_an_image_is_the_same_in_any_batch_and_order(config: str) -> None:
    detector = tiny(config).eval()
    batch = [image_input(*size, 0) for size in [(96, 160), (128, 70), (96, 160), (64, 64)]]
    together = predict(detector, batch)
    for b, image in enumerate(batch):
        alone = predict(detector, [image])
        assert_close(together.logits[:, b], alone.logits[:, 0], atol=1e-5, rtol=1e-5)
        assert_close(together.boxes[:, b], alone.boxes[:, 0], atol=1e-5, rtol=1e-5)
    backwards = predict(detector, batch[::-1])
    assert_close(backwards.logits.flip(1), together.logits, atol=1e-5, rtol=1e-5)


def test_norm_over_padding_is_the_ports_way() -> None:
    batch = [image_input(96, 160, 0), image_input(64, 64, 0)]
    for norm_padding in (False, True):
        detector = tiny(CONFIGS[0], norm_padding=norm_padding).eval()
        difference = (predict(detector, batch).logits[:, 1] - predict(detector, batch[1:]).logits[:, 0]).abs().max()
        assert (difference > 1e-3) == norm_padding


def test_every_point_has_every_pattern() -> None:
    detector = tiny(CONFIGS[0]).eval()
    images = [detector.normalize(image_input(64, 64, 0)["image"])] * 2
    (part,) = detector.queries(detector.extract_features(images))
    assert part.content.shape == (2, 10, 16) and part.position.shape == (2, 10, 48)
    for pattern in range(2):
        for point in range(5):  # all points of the first pattern first
            query = 5 * pattern + point
            assert torch.equal(part.content[1, query], detector.queries.pattern.weight[pattern])
            assert torch.equal(part.reference[1, query], detector.queries.point.weight[point])
    assert torch.equal(part.position[0, :5], part.position[1, 5:])


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("counts", [(2, 0), (0, 0)])
def test_losses_and_gradients_with_and_without_objects(config: str, counts: tuple[int, int]) -> None:
    detector = tiny(config).train()
    losses = detector([image_input(96, 70, counts[0]), image_input(64, 96, counts[1])])
    assert set(losses) == {f"loss_{name}{layer}" for name in ("class", "bbox", "giou") for layer in ("", "_0")}
    sum(losses.values()).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    for name, parameter in detector.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("config", CONFIGS[:2])
def test_half_precision(config: str) -> None:
    detector = tiny(config).eval()
    batch = [image_input(96, 160, 1), image_input(64, 64, 2)]
    full = predict(detector, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = predict(detector, batch)
        losses = detector.train()(batch)
    assert half.logits.dtype == half.boxes.dtype == torch.float32
    assert_close(half.boxes, full.boxes, atol=0.05, rtol=0)  # bfloat16 has 8 bits
    assert_close(half.logits, full.logits, atol=0.1, rtol=0)
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in detector.parameters() if p.requires_grad)


def test_points_outside_of_the_image_stay_finite() -> None:
    detector = tiny(CONFIGS[0]).train()
    with torch.no_grad():
        detector.queries.point.weight[:3] = torch.tensor([[-0.5, 1.5], [0.0, 1.0], [7.0, -7.0]])
    losses = detector([image_input(64, 64, 2)])
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in detector.parameters() if p.requires_grad)
