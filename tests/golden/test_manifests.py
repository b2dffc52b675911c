"""Published state dicts: every key has a place of the same shape in the config's model, through every loader, and the
parameter counts are equal.
"""

import warnings
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import nn

from align_detr import Detector, model_zoo
from align_detr.checkpoint.checkpointer import Checkpointer
from align_detr.checkpoint.conversion import convert
from support.golden import Manifest, load_manifest
from support.paths import GOLDEN


class Row(NamedTuple):
    """A manifest's config, and what its release does in another way."""

    config: str
    freeze_at: int | None = None  # where it is not the config's
    unused: int = 0  # parameters that nothing uses
    halves: int = 0  # tensors that are two here
    constants: int = 0  # keys of numbers that are no weights
    classes: str = "head"  # the part whose num_classes holds
    keys: bool = True  # read by `convert`


TWO_STAGE = "deformable_detr/deformable_detr_r50_two_stage_50ep.py"
ROWS = {
    "raw_detr_r50": Row("detr/detr_r50_500ep.py"),
    "raw_detr_r50_dc5": Row("detr/detr_r50_dc5_500ep.py"),
    # detrex's port, of which no weights are published beside DETR's own: the sizes alone
    "detrex_detr_r50": Row("detr/detr_r50_500ep.py", freeze_at=1, keys=False),
    "detrex_detr_r50_dc5": Row("detr/detr_r50_dc5_500ep.py", keys=False),
    "conditional_detr_r50": Row("conditional_detr/conditional_detr_r50_50ep.py"),
    "dab_detr_r50": Row("dab_detr/dab_detr_r50_50ep.py"),
    "dab_detr_r50_3patterns": Row("dab_detr/dab_detr_r50_3patterns_50ep.py"),
    "align_dab_detr_r50": Row("align_detr/align_dab_detr_r50_50ep.py"),
    "align_dab_detr_r50_dc5": Row("align_detr/align_dab_detr_r50_dc5_50ep.py"),
    "dn_detr_r50": Row("dn_detr/dn_detr_r50_50ep.py"),
    "group_detr_r50": Row("group_detr/group_detr_r50_50ep.py"),
    # detrex freezes the stem alone; one table of queries becomes two
    "deformable_detr_r50": Row("deformable_detr/deformable_detr_r50_50ep.py", freeze_at=1, halves=1),
    "deformable_detr_r50_refine": Row("deformable_detr/deformable_detr_r50_refine_50ep.py", freeze_at=1, halves=1),
    "deformable_detr_r50_two_stage": Row(TWO_STAGE, freeze_at=1),
    "raw_deformable_detr_r50": Row("deformable_detr/deformable_detr_r50_50ep.py", halves=1),
    "raw_deformable_detr_r50_refine": Row("deformable_detr/deformable_detr_r50_refine_50ep.py", halves=1),
    "raw_deformable_detr_r50_single_scale": Row("deformable_detr/deformable_detr_r50_single_scale_50ep.py", halves=1),
    "raw_deformable_detr_r50_two_stage": Row(TWO_STAGE),
    "dab_deformable_detr_r50": Row("dab_deformable_detr/dab_deformable_detr_r50_50ep.py", freeze_at=1),
    "dab_deformable_detr_r50_two_stage": Row(
        "dab_deformable_detr/dab_deformable_detr_r50_two_stage_50ep.py", freeze_at=1
    ),
    "h_deformable_detr_r50_two_stage": Row("h_deformable_detr/h_deformable_detr_r50_12ep.py", freeze_at=1),
    "dino_r50_4scale": Row("dino/dino_r50_4scale_12ep.py"),
    "align_detr_r50_dino": Row("align_detr/align_dino_r50_4scale_12ep.py"),
    # DINO's own table of denoising labels has a row that is never drawn
    "raw_dino_r50_4scale": Row("dino/dino_r50_4scale_official.py", unused=256),
    "anchor_detr_r50": Row("AnchorDETR/anchor_detr_r50_50ep.py"),
    "raw_smca_detr_r50": Row("SMCA/smca_r50_50ep.py"),
    # the pixels' mean and deviation, and the cells' anchors
    "tsp_fcos_r50": Row("TSP/tsp_fcos_r50_36ep.py", constants=2),
    "tsp_rcnn_r50": Row("TSP/tsp_rcnn_r50_36ep.py", constants=7, classes="roi_heads"),
}
# the biases of the classifier, and the rows that are no class
CLASSIFIERS = {
    "class_embed.bias": 0,
    "class_embed.0.bias": 0,
    "transformer.class_embed.0.bias": 0,
    "roi_heads.box_predictor.cls_score.bias": 1,
}
MANIFESTS = sorted(path for path in (GOLDEN / "manifests").glob("*.json") if not path.stem.endswith("_param_groups"))


def described(
    name: str, num_classes: int | None = None, classes: str = "head", freeze_at: int | None = None
) -> DictConfig:
    """Return a config with a release's number of classes."""
    cfg = model_zoo.get_config(name)
    if num_classes is not None:
        cfg.model[classes].num_classes = num_classes
    if freeze_at is not None:
        cfg.model.backbone.freeze_at = freeze_at
    return cfg


def build(cfg: DictConfig) -> nn.Module:
    """Build a config's model without numbers."""
    with torch.device("meta"):
        return instantiate(cfg.model)


@pytest.mark.skipif(not MANIFESTS, reason=f"no manifests in {GOLDEN} (set ALIGN_DETR_GOLDEN)")
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_counts_and_keys(path: Path, tmp_path: Path) -> None:
    assert path.stem in ROWS, f"no config for {path}"
    row, manifest = ROWS[path.stem], load_manifest(path)
    background = 1 if row.config.startswith("detr/") else 0
    rows = [manifest.shapes[key][0] - more for key, more in CLASSIFIERS.items() if key in manifest.shapes]
    cfg = described(row.config, rows[0] - background if rows else None, row.classes, row.freeze_at)
    model = build(cfg)
    assert sum(p.numel() for p in model.parameters()) == manifest.total - row.unused
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == manifest.trainable - row.unused
    if not row.keys:
        return
    converted = convert(manifest.state, num_classes=model.num_classes)
    assert {key: value.shape for key, value in converted.items()} == {
        key: value.shape for key, value in model.state_dict().items()
    }
    assert_every_loader_takes(manifest, cfg, model, tmp_path / f"{path.stem}.pth")
    # what has no place of its own is another name of a tensor
    assert len(manifest.shapes) - len(converted) + row.halves == manifest.repeated + row.constants


def assert_every_loader_takes(manifest: Manifest, cfg: DictConfig, model: nn.Module, file: Path) -> None:
    """Load a file of one random number per key through our checkpointer, detectron2's, PyTorch's function, `Detector`,
    which refuses a file that leaves a tensor of either side over.
    """
    torch.save({"model": {key: torch.rand(()).expand(shape) for key, shape in manifest.shapes.items()}}, file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a model without numbers takes none
        checkpointer = Checkpointer(model)
        checkpointer.load(str(file))
        found = DetectionCheckpointer(model)._load_model(torch.load(file, weights_only=True))
        model.load_state_dict(torch.load(file, weights_only=True)["model"], strict=True)
        with torch.device("meta"):
            detector = Detector(cfg, weights=file, device="meta")
    assert checkpointer.report is not None and checkpointer.report.share == 1
    assert [*checkpointer.report.new, *checkpointer.report.left_over, *checkpointer.report.wrong_shapes] == []
    assert len(detector.class_names) == model.num_classes
    assert [*found.missing_keys, *found.unexpected_keys, *found.incorrect_shapes] == []


@pytest.mark.parametrize(
    ("config", "num_classes", "millions"),
    [
        ("detr/detr_r101_500ep.py", 91, 60),
        ("detr/detr_r101_dc5_500ep.py", 91, 60),
        ("conditional_detr/conditional_detr_r101_50ep.py", 80, 62),
        ("dab_detr/dab_detr_r101_dc5_50ep.py", 80, 63),
    ],
)
def test_r101(config: str, num_classes: int, millions: int) -> None:
    """19 M more than with a ResNet-50."""
    assert round(sum(p.numel() for p in build(described(config, num_classes)).parameters()) / 1e6) == millions


@pytest.mark.skipif(not MANIFESTS, reason=f"no manifests in {GOLDEN} (set ALIGN_DETR_GOLDEN)")
def test_the_authors_h_deformable_detr() -> None:
    """Its code is Deformable-DETR's with a table of 300 + 1500 contents and a feed-forward width of 2048."""
    state = dict(load_manifest(GOLDEN / "manifests" / "raw_deformable_detr_r50_two_stage.json").state)
    state["query_embed.weight"] = torch.empty(1800, 256, device="meta")
    for key, value in state.items():
        if ".linear" in key:
            state[key] = torch.empty([2048 if n == 1024 else n for n in value.shape], device="meta")
    model = build(described("h_deformable_detr/h_deformable_detr_r50_12ep.py", 91))
    assert {key: value.shape for key, value in convert(state, num_classes=91).items()} == {
        key: value.shape for key, value in model.state_dict().items()
    }
