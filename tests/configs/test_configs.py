"""Every config file: loaded, shrunk, trained for one step and evaluated. New configs and projects are found by
themselves.
"""

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig, ListConfig
from parts import image_input
from paths import PROJECT

CONFIGS = sorted(
    path
    for folder in [PROJECT / "configs", *(PROJECT / "projects").glob("*/configs")]
    for path in folder.rglob("*.py")
    if "common" not in path.relative_to(folder).parts
)
# What a number of this name becomes, wherever in a model it stands.
SMALL = dict(
    embed_dim=32,
    normalized_shape=32,
    num_features=16,
    num_heads=2,
    ffn_dim=32,
    num_layers=2,
    num_queries=12,
    num_one_to_one=5,
    num_classes=3,
    depth=18,
)
CHANNELS = {2048: 512}  # ResNet-50's res5 against ResNet-18's
MAPS = {"res2": 64, "res3": 128, "res4": 256, "res5": 512}  # channels of ResNet-18's maps


def shrink(node: DictConfig | ListConfig) -> None:
    """Makes a model small in place, keeping its structure."""
    for key in list(node.keys()) if isinstance(node, DictConfig) else range(len(node)):
        value = node[key]
        if key == "copies" and isinstance(value, DictConfig):  # one number a decoder layer, the last layers stay
            node[key] = {
                name: k if isinstance(k, int) else list(k)[-SMALL["num_layers"] :] for name, k in value.items()
            }
        elif isinstance(value, (DictConfig, ListConfig)):
            shrink(value)
        elif key in SMALL and isinstance(value, int):
            node[key] = min(value, SMALL[key])
        elif key == "in_channels":
            node[key] = CHANNELS.get(value, value)
        elif key in MAPS and isinstance(value, int):
            node[key] = min(value, MAPS[key])
        elif key == "res5_dilation":
            node[key] = 1  # ResNet-18 has none


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_train_and_evaluate(path: Path) -> None:
    cfg = LazyConfig.load(str(path))
    assert {"model", "optimizer", "lr_multiplier", "train", "dataloader"} <= set(cfg)
    assert cfg.train.max_iter or cfg.train.epochs > 0
    shrink(cfg.model)
    torch.manual_seed(0)
    model = instantiate(cfg.model)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    assert instantiate(cfg.lr_multiplier)(0.0) > 0
    classes = model.num_classes
    batch = [image_input(96, 70, 3, classes), image_input(64, 96, 0, classes)]
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in trained.items()}
    with EventStorage():  # which detectron2's proposal generators report to
        losses = model.train()(batch)
    sum(losses.values()).backward()
    optimizer.step()
    assert all(torch.isfinite(value) for value in losses.values())
    for name, p in trained.items():
        # A gradient of zero is ordinary (self-attention of queries that are all zero), a missing one breaks training on
        # several GPUs.
        assert p.grad is not None and torch.isfinite(p.grad).all(), name
    # What stays are norms that TSP-RCNN's proposal head keeps for each level, on levels where no object is.
    assert sum(not torch.equal(p, before[name]) for name, p in trained.items()) > 0.85 * len(trained)
    with torch.no_grad():
        results = model.eval()(batch)
    for result, image in zip(results, batch, strict=True):
        found = result["instances"]
        assert found.image_size == (image["height"], image["width"])
        assert torch.isfinite(found.pred_boxes.tensor).all() and torch.isfinite(found.scores).all()
        assert ((found.pred_classes >= 0) & (found.pred_classes < classes)).all()


def test_there_are_configs() -> None:
    assert len(CONFIGS) >= 8
