"""Activation checkpointing: the same step with less memory."""

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import instantiate
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from align_detr.engine.ema import ModelEMA
from align_detr.engine.recomputation import Recomputed, checkpoint_activations
from align_detr.errors import ConfigError
from support.detectors import tiny_detr
from support.inputs import image_input
from support.processes import in_two_processes
from support.shrink import small_model

CONFIGS = {
    "detr": "detr/detr_r50_500ep.py",
    "dino": "dino/dino_r50_4scale_12ep.py",
    "tsp_fcos": "TSP/tsp_fcos_r50_36ep.py",
    "tsp_rcnn": "TSP/tsp_rcnn_r50_36ep.py",
}


def detector(kind: str) -> nn.Module:
    """A small detector with dropout; DINO with its denoising."""
    torch.manual_seed(0)
    return instantiate(small_model(CONFIGS[kind], dropout=0.1)).train()


def batch() -> list[dict[str, Any]]:
    torch.manual_seed(1)
    return [image_input(96, 64, 3), image_input(64, 96, 2)]


def step(model: nn.Module, *, autocast: bool = False) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The losses and gradients of a batch, with the random numbers of a seed."""
    inputs = batch()
    with EventStorage(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        losses = model(inputs)
    sum(losses.values()).backward()
    return losses, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("kind", "autocast"), [*((kind, False) for kind in CONFIGS), ("dino", True)])
def test_losses_and_gradients_are_the_same(kind: str, autocast: bool) -> None:
    """To the last bit, with dropout, denoising noise and sampled proposals, in float32 and bfloat16."""
    plain, saving = detector(kind), detector(kind)
    checkpoint_activations(saving, True)
    assert list(plain.state_dict()) == list(saving.state_dict())
    losses, gradients = step(plain, autocast=autocast)
    same_losses, same_gradients = step(saving, autocast=autocast)
    assert losses.keys() == same_losses.keys() and gradients.keys() == same_gradients.keys()
    assert all(torch.equal(losses[name], same_losses[name]) for name in losses)
    assert all(torch.equal(gradients[name], same_gradients[name]) for name in gradients)
    rest = torch.rand(3)
    step(plain, autocast=autocast)
    assert torch.equal(rest, torch.rand(3)), "the generators go on alike"


@pytest.mark.parametrize("parts", [True, ["decoder.query_masks"]])
def test_a_mask_of_pairs_finds_its_own_layer_again(parts: bool | list[str]) -> None:
    """Also of three layers, whose boxes differ: the relation before the second is not computed again with those before
    the third.
    """

    def related() -> nn.Module:
        torch.manual_seed(0)
        model = instantiate(small_model("ablations/digits_relation.py", num_layers=3)).train()
        for name, p in model.named_parameters():
            if "query_masks" in name or "bbox_embed" in name:
                nn.init.normal_(p, std=0.3)
        return model

    saving = related()
    checkpoint_activations(saving, parts)
    (mask,) = saving.decoder.query_masks
    assert isinstance(mask.forward, Recomputed) is (parts is not True), "a mask is no block unless it is named"
    losses, gradients = step(related())
    same_losses, same_gradients = step(saving)
    assert gradients["decoder.query_masks.0.projection.weight"].abs().max() > 0
    assert all(torch.equal(losses[name], same_losses[name]) for name in losses)
    assert gradients.keys() == same_gradients.keys()
    assert all(torch.equal(gradients[name], same_gradients[name]) for name in gradients)


def saved_bytes(model: nn.Module) -> int:
    """The bytes of different tensors that a forward pass keeps for the backward pass, inputs of blocks included."""
    kept: dict[int, Tensor] = {}

    def keep(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x
        return x

    def keep_inputs(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module.forward, Recomputed):
            for x in inputs:
                if isinstance(x, Tensor):
                    keep(x)

    for module in model.modules():
        module.register_forward_pre_hook(keep_inputs)
    inputs = batch()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x), EventStorage():
        losses = model(inputs)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    assert losses
    return sum(x.untyped_storage().nbytes() for key, x in kept.items() if key not in weights)


@pytest.mark.parametrize(("kind", "most"), {"detr": 0.75, "dino": 0.5, "tsp_fcos": 0.97, "tsp_rcnn": 0.97}.items())
def test_less_is_kept_for_the_backward_pass(kind: str, most: float) -> None:
    """Also in these small models, whose heads keep as much as before."""
    saving = detector(kind)
    before = saved_bytes(detector(kind))
    checkpoint_activations(saving, True)
    assert saved_bytes(saving) < most * before


def test_batch_norms_count_a_batch_once() -> None:
    """The second computation leaves their statistics alone."""
    plain, saving = tiny_detr().train(), tiny_detr().train()
    checkpoint_activations(saving, ["backbone"])
    step(plain)
    step(saving)
    buffers = dict(saving.named_buffers())
    assert int(buffers["backbone.res2.0.conv1.norm.num_batches_tracked"]) == 1
    assert all(torch.equal(value, buffers[name]) for name, value in plain.named_buffers())


def test_averages_have_blocks_of_their_own() -> None:
    """A deep copy computes with its weights, and keeps nothing where there are no gradients."""
    model = detector("detr")
    checkpoint_activations(model, True)
    ema = ModelEMA(model=model)
    blocks = [m for m in ema.module.modules() if isinstance(m.__dict__.get("forward"), Recomputed)]
    assert len(blocks) == 8 and all(block.forward.block is block for block in blocks)
    expected = copy.deepcopy(ema.module)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        found, same = ema.module(batch()), expected(batch())
    assert torch.equal(found[0]["instances"].pred_boxes.tensor, same[0]["instances"].pred_boxes.tensor)
    assert found[0]["instances"].pred_boxes.tensor.abs().sum() > 0


def gradients_of_a_process(rank: int) -> list[float]:
    model = detector("dino")
    checkpoint_activations(model, True)
    _, gradients = step(DistributedDataParallel(model))
    return [float(g.double().norm()) for g in gradients.values()]


def test_two_processes(tmp_path: Path) -> None:
    """Both with the batch of one process have its gradients."""
    _, gradients = step(detector("dino"))
    for norms in in_two_processes(gradients_of_a_process, tmp_path):
        assert norms == pytest.approx([float(g.double().norm()) for g in gradients.values()], rel=1e-5, abs=1e-8)


def test_the_log_counts_blocks(caplog: pytest.LogCaptureFixture) -> None:
    """Of the named parts; again, there is nothing left to do."""
    model = detector("detr")
    with caplog.at_level(logging.INFO):
        checkpoint_activations(model, ["encoder", "backbone.res5"])
    assert "encoder 2, backbone.res5 1." in caplog.text
    checkpoint_activations(model, False)
    assert sum(isinstance(m.forward, Recomputed) for m in model.modules()) == 3


def test_layers_inside_region_heads_are_found(caplog: pytest.LogCaptureFixture) -> None:
    """TSP-RCNN's encoder is a part of a stage of its region heads."""
    with caplog.at_level(logging.INFO):
        checkpoint_activations(detector("tsp_rcnn"), True)
    assert "backbone 4, roi_heads.stages.0.transformer.encoder 2." in caplog.text


@pytest.mark.parametrize("parts", ["encodr", ["head"], 3, [""]])
def test_a_part_without_blocks(parts: Any) -> None:
    with pytest.raises(ConfigError, match="train.checkpoint_activations names .* name some of backbone, encoder, deco"):
        checkpoint_activations(detector("detr"), parts)


def test_a_model_without_blocks() -> None:
    with pytest.raises(ConfigError, match="finds no blocks"):
        checkpoint_activations(nn.Linear(2, 2), True)
