"""Conditional-, DAB-, Group- and Align-DAB-DETR as wholes: batches, padding, precision, images without objects."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from torch.testing import assert_close

from align_detr.config import add_align_detr_config
from align_detr.modeling.meta_arch import DETR
from support.detectors import CLASSES, DIM, KINDS, detector
from support.inputs import image_input
from support.single_scale import noise_memory

# Differently sized, two alike, one not a multiple of any stride.
SIZES = [(96, 70), (64, 128), (96, 70), (33, 47)]


def inputs(counts: list[int]) -> list[dict]:
    torch.manual_seed(1)
    return [image_input(*size, num_objects=n, num_classes=CLASSES) for size, n in zip(SIZES, counts, strict=False)]


@pytest.mark.parametrize("kind", KINDS)
def test_batch_size_does_not_change_detections(kind: str) -> None:
    model, images = detector(kind).eval(), inputs([0] * len(SIZES))
    with torch.no_grad():
        together = model(images)
        alone = [model([image])[0] for image in images]
    for a, b in zip(together, alone, strict=True):
        a, b = a["instances"], b["instances"]
        assert len(a) == len(b) > 0
        assert_close(a.pred_boxes.tensor, b.pred_boxes.tensor, atol=1e-3, rtol=0)
        assert_close(a.scores, b.scores, atol=1e-5, rtol=0)


@pytest.mark.parametrize("counts", [[2, 0, 1], [0, 0], [30, 1]], ids=["one empty", "all empty", "crowded"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient(kind: str, counts: list[int]) -> None:
    model = detector(kind).train()
    losses = model(inputs(counts))
    assert losses.keys() == {f"loss_{name}{layer}" for name in ("class", "bbox", "giou") for layer in ("", "_0")}
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_autocast_trains(kind: str) -> None:
    model, batch = detector(kind).train(), inputs([2, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(batch)
        preds = model.predict(model.encoder(model.extract_features([model.normalize(x["image"]) for x in batch])))
    assert preds["main"].boxes.dtype == torch.float32
    assert all(value.dtype == torch.float32 and torch.isfinite(value) for value in losses.values())
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_not_seen(kind: str) -> None:
    """Other contents of padded tokens change nothing; without the mask in cross-attention they do."""
    memory = noise_memory(DIM)
    other = memory.with_tokens(torch.where(memory.padding[..., None], 3.0, memory.tokens))
    for mask_padding in (True, False):
        model = detector(kind, mask_padding=mask_padding).eval()
        first, second = (model.predict(model.encoder(m))["main"].logits for m in (memory, other))
        assert_close(first[:, 0], second[:, 0])
        assert torch.allclose(first[:, 1], second[:, 1], atol=1e-5) == mask_padding


CONFIGS = {
    "ConditionalDETR": "conditional_detr/conditional_detr_r50_50ep.py",
    "DABDETR": "align_detr/align_dab_detr_r50_50ep.py",
    "DNDETR": "dn_detr/dn_detr_r50_50ep.py",
    "GroupDETR": "group_detr/group_detr_r50_50ep.py",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_registered_and_built_from_yacs_keys(name: str) -> None:
    """A subclass that another detectron2 project registers builds, too; the number of classes is given once."""
    cfg = get_cfg()
    add_align_detr_config(cfg)
    cfg.MODEL.DEVICE, cfg.MODEL.META_ARCHITECTURE = "cpu", f"Sub{name}{id(object())}"
    cfg.MODEL.ALIGN_DETR.CONFIG = CONFIGS[name]
    cfg.MODEL.ALIGN_DETR.OVERRIDES = [
        "model.head.num_classes=3",
        "model.backbone.depth=18",
        "model.neck.in_channels=512",
    ]
    detector = META_ARCH_REGISTRY.get(name)
    META_ARCH_REGISTRY._do_register(cfg.MODEL.META_ARCHITECTURE, type("Sub", (detector,), {}))
    model = build_model(cfg)
    assert isinstance(model, detector) and issubclass(detector, DETR)
    assert model.head.class_embed.out_features == 3
    if name == "DNDETR":
        assert model.queries.label_embed.num_embeddings == 3 + 1, "one for each class and one for unknown"
