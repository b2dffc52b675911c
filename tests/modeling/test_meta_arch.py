"""DETR as a detectron2 meta-architecture: training, evaluation in batches, and the two yacs keys."""

import subprocess
import sys

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from torch.testing import assert_close

from align_detr import config
from align_detr.config import add_align_detr_config
from align_detr.errors import ConfigError, DatasetError, NonFinitePrediction
from align_detr.modeling.meta_arch import DETR
from support.inputs import image_input, tiny_detr
from support.paths import PROJECT

# Differently sized, two alike, one not a multiple of any stride.
SIZES = [(96, 70), (64, 128), (96, 70), (33, 47), (128, 101)]


def inputs(counts: list[int]) -> list[dict]:
    torch.manual_seed(1)
    return [image_input(*size, num_objects=n) for size, n in zip(SIZES, counts, strict=False)]


def test_batch_size_does_not_change_detections() -> None:
    model = tiny_detr().eval()
    images = inputs([0] * len(SIZES))
    with torch.no_grad():
        together = model(images)
        alone = [model([image])[0] for image in images]
    for a, b in zip(together, alone, strict=True):
        a, b = a["instances"], b["instances"]
        assert len(a) == len(b) > 0
        assert_close(a.pred_boxes.tensor, b.pred_boxes.tensor, atol=1e-4, rtol=0)
        assert_close(a.scores, b.scores, atol=1e-4, rtol=0)
        assert torch.equal(a.pred_classes, b.pred_classes)


def test_detections_are_in_the_output_size() -> None:
    model = tiny_detr().eval()
    image = inputs([0])[0]
    with torch.no_grad():
        plain = model([image])[0]["instances"]
        doubled = model([{**image, "height": 2 * 96, "width": 2 * 70}])[0]["instances"]
    assert doubled.image_size == (192, 140)
    assert_close(doubled.pred_boxes.tensor, 2 * plain.pred_boxes.tensor)


@pytest.mark.parametrize(
    "counts",
    [[2, 0, 1], [0, 0], [0], [9, 1]],
    ids=["one empty", "all empty", "single empty", "more objects than queries"],
)
def test_every_parameter_gets_a_gradient(counts: list[int]) -> None:
    model = tiny_detr(num_queries=6).train()
    losses = model(inputs(counts))
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_a_nan_names_layer_query_and_file() -> None:
    model = tiny_detr().train()
    model.backbone.eval()  # batch norm would spread the NaN over the batch
    batch = inputs([2, 1])
    batch[1].update(file_name="broken.jpg", image=torch.full((3, 64, 128), float("nan")))
    with pytest.raises(NonFinitePrediction, match="set 'main', layer 0, image broken.jpg, query 0 is the first"):
        model([{"file_name": "fine.jpg", **batch[0]}, batch[1]])


def test_forward_changes_nothing() -> None:
    model = tiny_detr().train()
    batch = inputs([2, 1])
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = [x["image"].clone() for x in batch]
    first, second = model(batch), model(batch)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(torch.equal(a, x["image"]) for a, x in zip(images, batch, strict=True))


def test_bfloat16_autocast_trains() -> None:
    model = tiny_detr().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(inputs([2, 1]))
    assert all(value.dtype == torch.float32 and torch.isfinite(value) for value in losses.values())
    sum(losses.values()).backward()


def yacs(config: str, architecture: str = "DETR"):
    cfg = get_cfg()
    add_align_detr_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = architecture
    cfg.MODEL.ALIGN_DETR.CONFIG = config
    cfg.MODEL.ALIGN_DETR.OVERRIDES = [
        "model.head.num_classes=3",
        "model.queries.num_queries=7",
        "model.backbone.norm=BN",
    ]
    return cfg


def test_yacs_bridge() -> None:
    model = build_model(yacs("detr/detr_r50_500ep.py"))
    assert type(model) is META_ARCH_REGISTRY.get("DETR") is DETR
    assert model.num_classes == 3 and model.queries.position.num_embeddings == 7


def test_yacs_bridge_as_documented() -> None:
    """The lines of the module's docstring run in an interpreter that has imported nothing else."""
    code = "\n".join(line.strip() for line in config.__doc__.splitlines() if line.startswith("    "))
    assert "build_model" in code
    imports = "from detectron2.config import get_cfg\nfrom detectron2.modeling import build_model\n"
    imports += "from align_detr.config import add_align_detr_config\n"
    check = "\nassert type(model).__name__ == 'DETR' and model.num_classes == 3"
    on_cpu = "\ncfg.MODEL.DEVICE = 'cpu'\nmodel ="
    subprocess.run([sys.executable, "-c", imports + code.replace("\nmodel =", on_cpu) + check], check=True, cwd=PROJECT)


def test_yacs_bridge_takes_subclasses_and_rgb_only() -> None:
    registered = f"SubDETR{id(object())}"
    META_ARCH_REGISTRY._do_register(registered, type(registered, (DETR,), {}))
    assert isinstance(build_model(yacs("detr/detr_r50_500ep.py", registered)), DETR)
    cfg = yacs("detr/detr_r50_500ep.py")
    cfg.INPUT.FORMAT = "BGR"
    with pytest.raises(ConfigError, match="INPUT.FORMAT is BGR"):
        build_model(cfg)
    cfg = yacs("detr/detr_r50_500ep.py")
    cfg.MODEL.ALIGN_DETR.OVERRIDES = ["model.head.num_class=3"]
    with pytest.raises(ConfigError, match="did you mean 'model.head.num_classes'"):
        build_model(cfg)


def test_yacs_bridge_without_its_keys() -> None:
    with pytest.raises(ConfigError, match="MODEL.ALIGN_DETR.CONFIG is not set"):
        build_model(yacs(""))
    plain = get_cfg()
    plain.MODEL.META_ARCHITECTURE = "DETR"
    with pytest.raises(ConfigError, match="add_align_detr_config"):
        build_model(plain)


def test_input_without_images_or_annotations() -> None:
    model = tiny_detr()
    assert model.eval()([]) == []
    with pytest.raises(DatasetError, match="no image: check the data loader's batch size"):
        model.train()([])
    image = {"image": torch.zeros(3, 32, 32), "file_name": "cat.png"}
    with pytest.raises(DatasetError, match=r"Image cat\.png has no 'instances'"):
        model.train()([image])
