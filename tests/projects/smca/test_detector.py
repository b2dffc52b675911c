"""A small SMCA from images to losses and detections: batches, empty images, half precision."""

import pytest
import torch
from detectron2.config import instantiate
from torch.testing import assert_close

from align_detr import model_zoo
from align_detr.projects.smca import SMCADETR
from align_detr.structures import Predictions
from support.inputs import image_input

CONFIGS = ["SMCA/smca_r50_50ep.py", "SMCA/align_smca_r50_50ep.py"]


def tiny(config: str) -> SMCADETR:
    """Build the config's detector with 16 channels, 2 + 2 layers, 2 heads, 3 classes and 6 queries."""
    torch.manual_seed(0)
    model = model_zoo.get_config(config).model
    model.backbone.depth, model.neck.in_channels, model.neck.position.num_features = 18, 512, 8
    for part in (model.neck, model.queries, model.head, model.decoder, model.encoder.layer, model.decoder.layer):
        part.embed_dim = 16
    for stack in (model.encoder, model.decoder):
        stack.num_layers, stack.layer.num_heads, stack.layer.ffn_dim, stack.layer.dropout = 2, 2, 32, 0.0
    if model.criterion.matcher.get("copies"):
        model.criterion.matcher.copies.main = [3, 1]
    model.decoder.norm.normalized_shape, model.queries.num_queries, model.head.num_classes = 16, 6, 3
    detector = instantiate(model)
    with torch.no_grad():  # else all heads are alike and boxes are their centres
        for linear in (detector.head.bbox_embed.layers[-1], *(x.offset for x in detector.decoder.layers)):
            torch.nn.init.normal_(linear.weight)
    return detector


@torch.no_grad()
def predict(detector: SMCADETR, batch: list[dict]) -> Predictions:
    images = [detector.normalize(x["image"]) for x in batch]
    return detector.predict(detector.encoder(detector.extract_features(images)))["main"]


def test_an_image_is_the_same_in_any_batch_and_order() -> None:
    detector = tiny(CONFIGS[0]).eval()
    batch = [image_input(*size, 0) for size in [(96, 160), (128, 70), (96, 160), (64, 64)]]
    together = predict(detector, batch)
    for b, image in enumerate(batch):
        alone = predict(detector, [image])
        assert_close(together.logits[:, b], alone.logits[:, 0], atol=1e-5, rtol=1e-5)
        assert_close(together.boxes[:, b], alone.boxes[:, 0], atol=1e-5, rtol=1e-5)
    backwards = predict(detector, batch[::-1])
    assert_close(backwards.logits.flip(1), together.logits, atol=1e-5, rtol=1e-5)


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


def test_boxes_of_every_layer_start_at_the_centre_and_train_it() -> None:
    detector = tiny(CONFIGS[0]).train()
    memory = detector.encoder(detector.extract_features([torch.randn(3, 64, 64)]))
    queries = detector.queries(memory)
    _, references = detector.decoder.decode(queries, memory, detector.head)
    placed = detector.decoder.layers[0].place_norm(detector.queries.position.weight)
    centre = detector.decoder.centre(placed).sigmoid()[None]
    assert len(references) == 2
    for layer, reference in enumerate(references):
        assert_close(reference, centre)
        boxes = detector.decoder(queries, memory, detector.head)["main"].boxes[layer]
        (gradient,) = torch.autograd.grad(boxes[..., :2].sum(), detector.decoder.centre.layers[-1].bias)
        assert (gradient > 1e-3).all()  # the sum of the derivatives of sigmoids


def test_half_precision() -> None:
    detector = tiny(CONFIGS[0]).eval()
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
