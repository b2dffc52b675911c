"""Heads and proposals with K + 1 softmax logits, and detectors of every family that are trained with them."""

import re

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import nn
from torch.testing import assert_close

from align_detr import modeling
from align_detr.errors import ConfigError
from align_detr.layers.mlp import MLP
from align_detr.modeling.head import LayerwiseHead, LayerwiseIoUHead, SharedHead
from align_detr.modeling.postprocess import SoftmaxPostprocess, TopKPostprocess
from align_detr.modeling.proposals import ClassProposals, ObjectProposals, TwoStageProposals
from align_detr.structures import Memory, Predictions
from support.inputs import image_input
from support.paths import PROJECT
from support.shrink import small_model

CLASSES, LAYERS = 3, 2
DINO = "dino/dino_r50_4scale_12ep.py"
FAMILIES = [
    DINO,
    "align_detr/align_dino_r50_4scale_k2_12ep.py",
    "group_detr/group_dino_r50_4scale_12ep.py",
    "ablations/dino_r50_iou_branch_12ep.py",
    "deformable_detr/deformable_detr_r50_50ep.py",
    "deformable_detr/deformable_detr_r50_two_stage_50ep.py",
    "dab_deformable_detr/dab_deformable_detr_r50_two_stage_50ep.py",
    "h_deformable_detr/h_deformable_detr_r50_12ep.py",
    "dab_detr/dab_detr_r50_50ep.py",
    "align_detr/align_dn_detr_r50_50ep.py",
    "conditional_detr/conditional_detr_r50_50ep.py",
    "AnchorDETR/anchor_detr_r50_50ep.py",
    "SMCA/smca_r50_50ep.py",
]


def small(name: str, softmax: bool = False) -> DictConfig:
    """Return the small model of a config."""
    model = small_model(name, dn_number=4)
    if softmax:
        use_softmax(model)
    return model


def use_softmax(model: DictConfig) -> None:
    """Run the lines of docs/losses.md on a config."""
    page = (PROJECT / "docs" / "losses.md").read_text()
    lines = re.search(r"```python\n(model\.head\.softmax = .*?)```", page, re.DOTALL)[1].splitlines()
    assert len(lines) == 5
    if model.get("proposals") is None:
        lines = [line for line in lines if "model.proposals" not in line]
    exec("\n".join(lines), vars(modeling) | dict(model=model, L=L))


def batch() -> list[dict]:
    torch.manual_seed(1)
    return [image_input(96, 70, 3, CLASSES), image_input(64, 96, 0, CLASSES), image_input(80, 80, 1, CLASSES)]


def step(cfg: DictConfig) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    model = instantiate(cfg).train()
    losses = model(batch())
    sum(losses.values()).backward()
    return model, losses


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_trains_and_detects(name: str) -> None:
    """A parameter with a gradient under sigmoid logits has one under softmax logits; the losses have the same names."""
    (sigmoid, expected), (model, losses) = step(small(name)), step(small(name, softmax=True))
    assert losses.keys() == expected.keys() and all(torch.isfinite(x) for x in losses.values())
    trained = {key for key, p in sigmoid.named_parameters() if p.grad is not None}
    assert {key for key, p in model.named_parameters() if p.grad is not None} == trained
    for key, p in model.named_parameters():
        assert p.grad is None or torch.isfinite(p.grad).all(), key
        if "class_embed" in key:
            assert len(p) == CLASSES + 1 and p.grad.abs().sum() > 0, key
    with torch.no_grad():
        for found in (x["instances"] for x in model.eval()(batch())):
            assert len(found) > 0 and ((found.scores >= 0) & (found.scores <= 1)).all()
            assert found.pred_classes.max() < CLASSES


def test_denoising_by_hand() -> None:
    """Queries of the set `dn` without a positive copy, including padding of images with fewer objects, are background
    with weight 0.1; the sigmoid losses take them as negatives.
    """
    model = instantiate(small(DINO, softmax=True)).train()
    images, targets = [model.normalize(x["image"]) for x in batch()], model.targets(batch())
    sets = model.predict(model.encoder(model.extract_features(images)), targets)
    dn = sets["dn"]
    labels = torch.full(dn.logits.shape[1:3], CLASSES)
    for image, query, target in zip(dn.match.image, dn.match.query, dn.match.target, strict=True):
        labels[image, query] = targets.labels[image, target]
    known = labels < CLASSES
    assert known.sum(1)[1] == 0 < known.sum(1)[2] < known.sum(1)[0] < labels.shape[1]
    weight = torch.where(known, 1.0, 0.1)
    log_p = dn.logits[-1].log_softmax(-1).gather(-1, labels[..., None])[..., 0]
    assert_close(model.criterion(sets, targets)["loss_class_dn"], -(weight * log_p).sum() / weight.sum())


@pytest.mark.parametrize("kind", [SharedHead, LayerwiseHead, LayerwiseIoUHead])
def test_heads_by_hand(kind: type[nn.Module]) -> None:
    """A softmax head has the parameters of a sigmoid head, one more class, and the same boxes."""
    sizes = dict(num_classes=CLASSES, embed_dim=8, **({} if kind is SharedHead else dict(num_layers=LAYERS)))
    head, sigmoid = kind(softmax=True, **sizes), kind(**sizes)
    nn.init.normal_((head.bbox_embed if kind is SharedHead else head.bbox_embed[1]).layers[-1].weight)
    sigmoid.load_state_dict({**head.state_dict(), **{k: v for k, v in sigmoid.state_dict().items() if "class" in k}})
    hidden, references = torch.randn(LAYERS, 1, 5, 8), list(torch.rand(LAYERS, 1, 5, 4))
    preds, others = head(hidden, references), sigmoid(hidden, references)
    assert head.num_classes == CLASSES and preds.softmax and not others.softmax
    for layer in range(LAYERS):
        classifier = head.class_embed if kind is SharedHead else head.class_embed[layer]
        assert classifier.weight.shape == (CLASSES + 1, 8)
        assert classifier.bias.abs().max() < 8**-0.5  # no prior: as PyTorch starts linear layers
        assert_close(preds.logits[layer], hidden[layer] @ classifier.weight.T + classifier.bias)
    assert torch.equal(preds.boxes, others.boxes) and others.logits.shape[-1] == CLASSES


def test_softmax_option_leaves_the_draws_of_sigmoid_heads() -> None:
    torch.manual_seed(0)
    head, proposals = SharedHead(num_classes=CLASSES, embed_dim=8), ClassProposals(num_classes=CLASSES, embed_dim=8)
    torch.manual_seed(0)
    drawn = nn.Linear(8, CLASSES), MLP(8, 8, 4, 3)
    assert torch.equal(head.class_embed.weight, drawn[0].weight)
    assert torch.equal(head.bbox_embed.layers[1].weight, drawn[1].layers[1].weight)
    nn.init.xavier_uniform_(nn.Linear(8, 8).weight)
    assert torch.equal(proposals.class_embed.weight, nn.Linear(8, CLASSES).weight)


@pytest.mark.parametrize(
    ("kind", "softmax", "order"),
    [
        (ClassProposals, False, [2, 0, 1, 3]),  # best of three: 5, 3, 2, 1.5
        (ClassProposals, True, [3, 1, 0, 2]),  # best of two classes: 0.81, 0.79, 0.49, 0.27
        (ObjectProposals, False, [2, 0, 1, 3]),  # class 0: 4, 3, 2, 0
        (ObjectProposals, True, [1, 0, 2, 3]),  # class 0: 0.79, 0.49, 0.27, 0.18
    ],
)
def test_ranking_of_proposals(kind: type[TwoStageProposals], softmax: bool, order: list[int]) -> None:
    """The logits of the four tokens are the tokens themselves."""
    tokens = torch.tensor([[[3.0, 3.0, 0.0], [2.0, 0.0, 0.0], [4.0, 0.0, 5.0], [0.0, 1.5, -3.0]]])
    memory = Memory(tokens, tokens, padding=None, shapes=[(1, 4)], valid_sizes=[[(1, 4)]])
    proposals = kind(num_queries=4, num_classes=3 - softmax, embed_dim=3, softmax=softmax)
    assert proposals.class_embed.out_features == 3 and getattr(proposals, "num_classes", 3 - softmax) == 3 - softmax
    proposals.projection = proposals.norm = proposals.class_embed = nn.Identity()
    found = proposals(memory)
    assert torch.equal(found.content[0], tokens[0, order]) and found.predictions.softmax == softmax
    assert_close(found.reference[0, :, 0], (torch.tensor(order) + 0.5) / 4)


@pytest.mark.parametrize("name", [DINO, "deformable_detr/deformable_detr_r50_two_stage_50ep.py"])
def test_head_and_proposals_go_together(name: str) -> None:
    cfg = small(name, softmax=True)
    cfg.proposals.softmax = False
    with pytest.raises(ConfigError, match="SoftmaxCrossEntropy reads softmax .* 'enc' has sigmoid .* model.proposals"):
        step(cfg)
    cfg = small(name)
    cfg.proposals.softmax = True
    with pytest.raises(ConfigError, match="SigmoidFocalLoss reads sigmoid .* the set 'enc' has softmax"):
        step(cfg)


def test_detections_by_hand() -> None:
    """Two queries score two classes and "no object"; then the second query is padding."""
    logits = torch.tensor([[[[0.5, 0.2, 0.3], [0.1, 0.15, 0.75]]]]).log()
    preds = Predictions(logits=logits, boxes=torch.full((1, 1, 2, 4), 0.5), softmax=True)
    for postprocess, scores, classes in (
        (TopKPostprocess(num_detections=3), [0.5, 0.2, 0.15], [0, 1, 1]),
        (SoftmaxPostprocess(), [0.5, 0.15], [0, 1]),
    ):
        preds.valid = None
        (found,) = postprocess(preds, [(10, 10)])
        assert_close(found.scores, torch.tensor(scores))
        assert found.pred_classes.tolist() == classes
        preds.valid = torch.tensor([[True, False]])
        (found,) = postprocess(preds, [(10, 10)])
        assert_close(found.scores, torch.tensor(scores[:-1]))
    preds.softmax = False
    with pytest.raises(ConfigError, match="SoftmaxPostprocess reads softmax logits, but model.head gives sigmoid"):
        SoftmaxPostprocess()(preds, [(10, 10)])
