"""Detectors of the transformers library with the parts, the freezing and the dropout of this library's configs.

`pip install -e ".[peers]"` installs the version that the measurements name.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

# config of the model zoo -> model of transformers, prefix of its classes, options beside the common ones
PEERS: dict[str, tuple[str, dict[str, Any]]] = {
    "detr/detr_r50_500ep.py": ("Detr", {"num_queries": 100}),
    "conditional_detr/conditional_detr_r50_50ep.py": ("ConditionalDetr", {"num_queries": 300}),
    "dab_detr/dab_detr_r50_50ep.py": ("DabDetr", {"num_queries": 300}),
    "deformable_detr/deformable_detr_r50_two_stage_50ep.py": (
        "DeformableDetr",
        {"num_queries": 300, "two_stage": True, "with_box_refine": True},
    ),
}
STAGES = {"Detr": ["stage4"], "ConditionalDetr": ["stage4"], "DabDetr": ["stage4"]}


def is_installed() -> bool:
    """Return whether transformers can be imported."""
    try:
        import transformers  # noqa: F401
    except ImportError:
        return False
    return True


def version() -> str:
    """Return the version of transformers."""
    import transformers

    return str(transformers.__version__)


def build_peer(config: str, *, num_classes: int, freeze_at: int, dropout: float) -> nn.Module:
    """Return transformers' detector for a config of PEERS, with random weights and losses of every layer.

    Its ResNet-50 is transformers' own, with frozen batch norms; its first `freeze_at` stages do not train, as in
    detectron2's (transformers itself freezes none of them, or all). `dropout` is also that of attention weights, which
    transformers leaves out by default.
    """
    import transformers

    name, options = PEERS[config]
    backbone = transformers.ResNetConfig(
        layer_type="bottleneck", out_features=STAGES.get(name, ["stage2", "stage3", "stage4"])
    )
    settings = getattr(transformers, f"{name}Config")(
        backbone_config=backbone,
        num_labels=num_classes,
        auxiliary_loss=True,
        dropout=dropout,
        attention_dropout=dropout,
        **options,
    )
    model: nn.Module = getattr(transformers, f"{name}ForObjectDetection")(settings)
    frozen = [".embedder.", *(f".encoder.stages.{i}." for i in range(4))][:freeze_at]
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(not ("backbone" in key and any(part in key for part in frozen)))
    return model


def peer_inputs(batch: Sequence[Mapping[str, Any]], mean: Tensor, std: Tensor) -> dict[str, Any]:
    """Return a batch in the mapper's form, with images of one size, in transformers' form, on the device of `mean`."""
    pixels = torch.stack([(x["image"].to(mean.device).float() - mean) / std for x in batch])
    labels = []
    for x in batch:
        height, width = x["image"].shape[-2:]
        corners = x["instances"].gt_boxes.tensor / torch.tensor([width, height, width, height])
        centre, size = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
        boxes = torch.cat([centre, size], dim=1).to(mean.device)
        labels.append({"class_labels": x["instances"].gt_classes.to(mean.device), "boxes": boxes})
    return {"pixel_values": pixels, "labels": labels}
