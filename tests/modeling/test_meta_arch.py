"""DETR as a detectron2 meta-architecture: training, evaluation in batches, and the two yacs keys."""

import subprocess
import sys

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import META_ARCH_REGISTRY, build_model

from align_detr import config
from align_detr.config import add_align_detr_config
from align_detr.errors import ConfigError, NonFinitePrediction
from align_detr.modeling.meta_arch import DETR
from support.detectors import tiny_detr
from support.inputs import image_input
from support.paths import PROJECT

# Differently sized, two alike, one not a multiple of any stride.
SIZES = [(96, 70), (64, 128), (96, 70), (33, 47), (128, 101)]


def inputs(counts: list[int]) -> list[dict]:
    torch.manual_seed(1)
    return [image_input(*size, num_objects=n) for size, n in zip(SIZES, counts, strict=False)]


def test_a_nan_names_layer_query_and_file() -> None:
    model = tiny_detr().train()
    model.backbone.eval()  # batch norm would spread the NaN over the batch
    batch = inputs([2, 1])
    batch[1].update(file_name="broken.jpg", image=torch.full((3, 64, 128), float("nan")))
    with pytest.raises(NonFinitePrediction, match="set 'main', layer 0, image broken.jpg, query 0 is the first"):
        model([{"file_name": "fine.jpg", **batch[0]}, batch[1]])


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_pixel_statistics_keep_their_precision(dtype: torch.dtype) -> None:
    """Images are normalised in float32 whatever the weights are; float64 stays possible."""
    model, image = tiny_detr(), torch.full((3, 2, 2), 255, dtype=torch.uint8)
    expected = model.normalize(image)
    model = model.to(dtype)
    assert model.pixel_mean.dtype == model.pixel_std.dtype == torch.float32
    assert torch.equal(model.normalize(image), expected) and model.head.class_embed.weight.dtype == dtype
    assert model.double().normalize(image).dtype == torch.float64
