"""Sparsity of cross-attention: the entropy of the weights that the layers use, and no trace in training."""

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import instantiate
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from align_detr.engine.attention_sparsity import (
    NAME,
    NUM_QUERIES,
    AttentionSparsity,
    attention_sparsity,
    cross_attentions,
    negative_entropy,
)
from align_detr.engine.recomputation import checkpoint_activations
from align_detr.errors import ConfigError
from align_detr.layers import attention as fused
from align_detr.layers import deformable_attention as deformable
from align_detr.layers import dropout
from align_detr.modeling import conditional
from align_detr.projects.smca import attention as smca_attention
from support.detectors import tiny_tsp_fcos
from support.inputs import image_input
from support.shrink import small_model

CONFIGS = {
    "detr": "detr/detr_r50_500ep.py",
    "conditional": "conditional_detr/conditional_detr_r50_50ep.py",
    "group": "group_detr/group_detr_r50_50ep.py",
    "dino": "align_detr/align_dino_r50_4scale_12ep.py",
    "smca": "SMCA/smca_r50_50ep.py",
    "anchor": "AnchorDETR/anchor_detr_r50_50ep.py",
}


def detector(kind: str) -> nn.Module:
    """A small detector with dropout and, in each layer, other weights."""
    torch.manual_seed(0)
    model = instantiate(small_model(CONFIGS[kind], dropout=0.1)).train()
    for attention in cross_attentions(model):
        for parameter in attention.parameters():
            nn.init.normal_(parameter, std=0.3)
    return model


def batch() -> list[dict[str, Any]]:
    """Two images, whose batch has padding."""
    torch.manual_seed(1)
    return [image_input(96, 64, 3), image_input(64, 96, 2)]


class Run:
    """What the hook knows of a trainer, and its steps."""

    def __init__(self, model: nn.Module, period: int, *, bfloat16: bool = False) -> None:
        self.model, self.iter, self.bfloat16 = model, 0, bfloat16
        self.hook = attention_sparsity(model, period)
        if self.hook is not None:
            self.hook.trainer = self  # type: ignore[assignment]

    def step(self, inputs: list[dict[str, Any]]) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Make a forward and a backward pass; return the losses and the numbers that the hook stores."""
        with EventStorage(self.iter) as self.storage:
            if self.hook is not None:
                self.hook.before_step()
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
                losses = self.model(inputs)
            sum(losses.values()).backward()
            if self.hook is not None:
                self.hook.after_step()
            stored = {k: v for k, (v, _) in self.storage.latest().items() if k.startswith(f"{NAME}/")}
        self.iter += 1
        return losses, stored


def hooks_of(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_entropy_by_hand() -> None:
    """Even weights, all on one, and half on each of two."""
    weights = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.0, 1.0, 0.0, 0.0], [0.5, 0.0, 0.5, 0.0]])
    assert negative_entropy(weights).tolist() == pytest.approx([-math.log(4), 0, -math.log(2)])


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("saving", [False, True], ids=["plain", "checkpointed"])
def test_training_is_the_same_to_the_bit(kind: str, saving: bool) -> None:
    """Losses, gradients and generators, with dropout and denoising; nothing is registered but in recorded steps."""
    plain, recorded = detector(kind), detector(kind)
    for model in (plain, recorded):
        checkpoint_activations(model, saving)
    inputs, run = batch(), Run(recorded, 2)
    for iteration in range(2):
        torch.manual_seed(5)
        losses, nothing = Run(plain, 0).step(inputs)
        expected = torch.rand(3)
        torch.manual_seed(5)
        found, stored = run.step(inputs)
        assert torch.equal(torch.rand(3), expected) and not nothing
        assert list(stored) == ([f"{NAME}/layer_1", f"{NAME}/layer_2"] if iteration == 1 else [])
        assert losses.keys() == found.keys() and all(torch.equal(losses[k], found[k]) for k in losses)
        assert hooks_of(recorded) == 0
    for (name, one), (_, other) in zip(plain.named_parameters(), recorded.named_parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None) and (one.grad is None or torch.equal(one.grad, other.grad)), (
            name
        )


def test_bfloat16_keeps_its_gradients() -> None:
    """The copies of weights that autocast makes for the record are not those of the step."""
    plain, recorded = detector("dino"), detector("dino")
    inputs = batch()
    for model, period in ((plain, 0), (recorded, 1)):
        torch.manual_seed(5)
        Run(model, period, bfloat16=True).step(inputs)
    assert all(
        torch.equal(one.grad, other.grad)
        for one, other in zip(plain.parameters(), recorded.parameters(), strict=True)
        if one.grad is not None
    )


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The weights of all attentions before dropout, (B, H, Q, keys), as their inputs say, in order."""
    found: list[Tensor] = []
    sample = deformable.deformable_attention

    def attend(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, dropout_p: float = 0.0) -> Tensor:
        values = torch.eye(k.shape[-2]).expand(*k.shape[:-1], -1)  # a key's value says which it is
        found.append(F.scaled_dot_product_attention(q, k, values, attn_mask=mask).detach())
        return dropout.attend(q, k, v, mask=mask, dropout_p=dropout_p)

    def at_points(value: Tensor, shapes: Any, locations: Tensor, weights: Tensor) -> Tensor:
        found.append(weights.detach().flatten(-2).transpose(1, 2))
        return sample(value, shapes, locations, weights)

    for module in (fused, conditional, smca_attention):
        monkeypatch.setattr(module, "attend", attend)
    monkeypatch.setattr(deformable, "deformable_attention", at_points)
    return found


@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if kind != "anchor"])
def test_it_is_the_entropy_of_the_weights_in_use(kind: str, used: list[Tensor]) -> None:
    """Of the queries of `main`, of its first group, averaged over images and heads; one -sum p ln p at a time."""
    model = detector(kind)
    attentions = cross_attentions(model)
    last: list[Tensor] = []
    for attention in attentions:
        attention.register_forward_hook(lambda *_: last.append(used[-1]))
    queries: list[tuple[int, int]] = []

    def note(decoder: nn.Module, arguments: tuple) -> None:
        names = [part.name for part in arguments[0]]
        before = sum(p.content.shape[1] for p in arguments[0][: names.index("main")])
        main = arguments[0][names.index("main")]
        queries.append((before, main.content.shape[1] // main.groups))

    model.decoder.register_forward_pre_hook(note)
    _, stored = Run(model, 1).step(batch())
    ((start, count),) = queries
    for layer, weights in enumerate(last, start=1):
        rows = weights[:, :, start : start + count].double().flatten(0, 2).tolist()
        entropies = [-sum(p * math.log(p) for p in row if p > 0) for row in rows]
        assert stored[f"{NAME}/layer_{layer}"] == pytest.approx(-sum(entropies) / len(entropies), rel=1e-4)
    assert len(last) == len(stored) == 2 and stored[f"{NAME}/layer_1"] < -0.01


def test_row_column_weights_are_those_in_use() -> None:
    """Values that say which cell they are of come out as the weights of the cells."""
    attention = cross_attentions(detector("anchor"))[0].eval()
    torch.manual_seed(2)
    dim, shape = attention.out_proj.in_features, (3, 4)
    attention.num_heads = 1
    queries, keys = (torch.randn(2, 1, n, dim) for n in (5, 12))
    padding = torch.zeros(1, 3, 4, dtype=torch.bool)
    padding[:, 2], padding[:, :, 3] = True, True
    with torch.no_grad():
        attention.in_proj_weight[-dim:] = torch.eye(dim)
        attention.in_proj_bias[-dim:] = 0
        attention.out_proj.weight.copy_(torch.eye(dim)), attention.out_proj.bias.zero_()
        options = dict(shape=shape, padding=padding.flatten(1))
        out = attention(*queries, *keys, torch.eye(12, dim)[None], **options)
        weights = attention.weights(slice(1, 5, 2), *queries, *keys, torch.zeros(1, 12, dim), **options)
    assert torch.allclose(weights[:, 0], out[:, 1:5:2, :12], atol=1e-6)
    assert weights[..., padding.flatten()].max() == 0


def test_many_queries_are_sampled_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 70 queries every second, in the first of three groups."""
    torch.manual_seed(0)
    model = instantiate(small_model(CONFIGS["group"], num_queries=70)).train()
    chosen: list[slice] = []
    attention = cross_attentions(model)[0]
    weights = attention.weights
    monkeypatch.setattr(
        attention,
        "weights",
        lambda which, *args, **options: (chosen.append(which), weights(which, *args, **options))[1],
    )
    Run(model, 1).step(batch())
    assert chosen == [slice(0, 70, 2)] and NUM_QUERIES <= 35 < 2 * NUM_QUERIES


def test_only_known_attention_can_be_read() -> None:
    with pytest.raises(ConfigError, match=r"TSPFCOS has no weights that train\.attention_sparsity could read"):
        attention_sparsity(tiny_tsp_fcos(), 10)
    model = copy.deepcopy(detector("detr"))
    model.decoder.layers[1].cross_attn = nn.Identity()
    with pytest.raises(ConfigError, match="The cross-attention Identity has no weights"):
        AttentionSparsity(model)
    assert attention_sparsity(model, 0) is None


def test_a_copy_of_the_model_is_not_measured() -> None:
    """Such as a teacher, which is copied from its student in the first step, whose hooks it gets."""
    model = detector("detr")
    run = Run(model, 1)
    run.hook.before_step()
    other = copy.deepcopy(model)
    inputs = batch()
    model(inputs)
    values = dict(run.hook._values)
    nn.init.zeros_(other.decoder.layers[0].cross_attn.in_proj_weight)
    other(inputs)
    assert len(values) == 2 and all(run.hook._values[k] is values[k] for k in values)


def test_a_failed_step_leaves_no_hook() -> None:
    model = detector("detr")
    run = Run(model, 1)
    run.hook.before_step()
    assert hooks_of(model) == 3
    run.hook.after_train()
    assert hooks_of(model) == 0


DETR = """
import support.shrink

model = support.shrink.small_model("detr/detr_r50_500ep.py", num_classes=2, dropout=0.1)
"""


def test_a_run_writes_the_numbers(tiny_run: Any, capsys: pytest.CaptureFixture) -> None:
    """Into metrics.json, after every second of four iterations; all other numbers are those of a run without."""
    assert tiny_run.train("train.attention_sparsity=2") == 2
    assert "TinyDetector has no weights" in capsys.readouterr().err
    with tiny_run.config.open("a") as config:
        config.write(DETR)
    rows = {}
    for period in ("null", "2"):
        output = tiny_run.output / period
        arguments = ("train.max_iter=4", "train.eval_period=0", f"train.output_dir={output}")
        assert tiny_run.train(*arguments, f"train.attention_sparsity={period}") == 0
        rows[period] = [
            {k: v for k, v in row.items() if "time" not in k and "seconds" not in k} for row in tiny_run.metrics(output)
        ]
    names = [f"{NAME}/layer_1", f"{NAME}/layer_2"]
    assert [[name in row for name in names] for row in rows["2"][:4]] == [[False] * 2, [True] * 2] * 2
    taken = [row.pop(name) for row in rows["2"] for name in names if name in row]
    assert rows["2"] == rows["null"] and all(-math.log(1) >= x >= -math.log(4096) for x in taken)
