"""Routes of the decoder in training: what they compute, how they are matched and weighted, and that evaluation and the
plain sets know nothing of them.
"""

import copy
import dataclasses
import math
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall as L
from omegaconf import DictConfig
from torch import Tensor
from torch.testing import assert_close

from align_detr.checkpoint.contents import read_weights
from align_detr.checkpoint.loading import load_weights
from align_detr.errors import ConfigError
from align_detr.modeling import (
    DINO,
    CrossAttentionRoute,
    FeedForwardRoute,
    GroupDINO,
    InstructionRoute,
    OneToManyAssigner,
    PositionRelation,
    RoutedDecoder,
)
from align_detr.structures import Memory, Predictions, QueryPart, QueryPlace, Targets
from support.detectors import DIM, GROUPS, QUERIES, SIZES, build, deformable_node, tiny_dino
from support.inputs import image_input
from support.shrink import as_json, config, small_model

BESIDE_THEIR_PARENTS = {
    "dac_detr/dac_dino_r50_4scale_12ep.py": "dino/dino_r50_4scale_12ep.py",
    "dac_detr/align_dac_dino_r50_4scale_12ep.py": "align_detr/align_dino_r50_4scale_12ep.py",
    "mr_detr/mr_dino_r50_4scale_12ep.py": "dino/dino_r50_4scale_12ep.py",
    "mr_detr/align_mr_dino_r50_4scale_12ep.py": "align_detr/align_dino_r50_4scale_12ep.py",
    "ablations/digits_dac.py": "ablations/digits_mixed.py",
    "ablations/digits_mr.py": "ablations/digits_mixed.py",
}


def all_routes() -> list[DictConfig]:
    return [
        L(CrossAttentionRoute)(name="o2m", parts=["main", "dn"]),
        L(FeedForwardRoute)(name="o2m_ffn", num_layers=2, embed_dim=DIM, ffn_dim=24),
        L(InstructionRoute)(name="o2m_tokens", embed_dim=DIM, num_tokens=3),
    ]


def routed_dino(*routes: DictConfig, align: bool = False, num_queries: int = QUERIES) -> DINO:
    node = deformable_node("dino", num_queries)
    if align:
        node.criterion = small_model("align_detr/align_dino_r50_4scale_12ep.py", **SIZES).criterion
    node.queries.dn_number = 6
    node.decoder._target_, node.decoder.routes = RoutedDecoder, list(routes)
    return build(node)


def batch() -> list[dict]:
    torch.manual_seed(1)
    return [image_input(64, 64, 3), image_input(48, 64, 1)]


def sets_in_training(model: DINO) -> tuple[dict[str, Predictions], Targets]:
    images = batch()
    targets = model.targets(images)
    torch.manual_seed(2)  # the noise of denoising
    return model.train().predict_in_training([model.normalize(x["image"]) for x in images], targets), targets


def test_the_plain_detector_takes_the_weights_and_detects_the_same(tmp_path: Path) -> None:
    """To the last bit; the loading report names what is left over, and in training the plain sets are the same."""
    model, plain = routed_dino(*all_routes()), tiny_dino()
    torch.save(model.state_dict(), tmp_path / "routed.pth")
    report = load_weights(plain, read_weights(tmp_path / "routed.pth"))
    assert not report.new and not report.wrong_shapes
    layers = [f"decoder.routes.1.ffns.{i}.linear{k}.{x}" for i in (0, 1) for k in (1, 2) for x in ("weight", "bias")]
    assert list(report.left_over) == [*layers, "decoder.routes.2.tokens.weight"]
    assert "left over: 9 tensors" in str(report)
    with torch.no_grad():
        for a, b in zip(model.eval()(batch()), plain.eval()(batch()), strict=True):
            a, b = a["instances"], b["instances"]
            assert torch.equal(a.scores, b.scores) and torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor)
    (found, _), (expected, _) = sets_in_training(model), sets_in_training(plain)
    assert set(found) - set(expected) == {"o2m", "o2m_dn", "o2m_ffn", "o2m_tokens"}
    for name, preds in expected.items():
        assert torch.equal(found[name].logits, preds.logits) and torch.equal(found[name].boxes, preds.boxes)


def test_a_route_without_parameters_leaves_nothing_over() -> None:
    tiny_dino().load_state_dict(routed_dino(L(CrossAttentionRoute)()).state_dict(), strict=True)


def parts_and_memory(model: DINO) -> tuple[list[QueryPart], Memory]:
    images = batch()
    with torch.no_grad():
        memory = model.encoder(model.extract_features([model.normalize(x["image"]) for x in images]))
        torch.manual_seed(2)
        return model.queries(memory, model.proposals(memory), model.targets(images)), memory


def decoded_by_hand(model: DINO, part: QueryPart, memory: Memory, layer_by_hand) -> tuple[list[Tensor], list[Tensor]]:
    """Return logits and boxes of each layer, of DINO's loop written out: boxes look forward twice."""
    decoder, head = model.decoder, model.head
    x, reference, start = part.content, part.reference, part.reference
    logits, boxes = [], []
    for i, layer in enumerate(decoder.layers):
        position, _ = decoder.query_position(x, None, reference, memory, i)
        x = layer_by_hand(i, layer, x, QueryPlace(position=position, reference=reference))
        hidden = decoder.norm(x)
        logits.append(head.class_embed[i](hidden))
        boxes.append(head.refine(hidden, start, i))
        start = head.refine(x, reference, i)
        reference = start.detach()
    return logits, boxes


def observed(layer, x: Tensor, place: QueryPlace, memory: Memory) -> Tensor:
    """Return the contents after cross-attention."""
    levels = place.reference[:, :, None] * memory.valid_ratios.repeat(1, 1, 2)[:, None]
    attended = layer.cross_attn(x + place.position, levels, memory.tokens, memory.shapes, memory.padding)
    return layer.cross_attn_norm(x + attended)


def ffn_by_hand(ffn, x: Tensor) -> Tensor:
    return ffn.linear2(torch.relu(ffn.linear1(x)))


@pytest.mark.parametrize("index", range(3))
def test_routes_by_hand(index: int) -> None:
    """Cross-attention and FFN alone; self-attention, cross-attention and an own FFN; keys and values of self-attention
    with tokens before the queries. Each against the layer written out.
    """
    model = routed_dino(all_routes()[index]).train()
    (route,) = model.decoder.routes
    parts, memory = parts_and_memory(model)
    (main,) = (part for part in parts if part.name == "main")

    def layer_by_hand(i: int, layer, x: Tensor, place: QueryPlace) -> Tensor:
        placed = x + place.position
        if index == 1:
            x = layer.self_attn_norm(x + layer.self_attn(placed, placed, x))
        if index == 2:
            tokens = route.tokens.weight.expand(len(x), -1, -1)
            keys, values = torch.cat([tokens, placed], dim=1), torch.cat([tokens, x], dim=1)
            x = layer.self_attn_norm(x + layer.self_attn(placed, keys, values))
        x = observed(layer, x, place, memory)
        return layer.ffn_norm(x + ffn_by_hand(route.ffns[i] if index == 1 else layer.ffn, x))

    with torch.no_grad():
        found = model.decoder(parts, memory, model.head)[route.name]
        logits, boxes = decoded_by_hand(model, main, memory, layer_by_hand)
    assert_close(found.logits, torch.stack(logits), atol=1e-5, rtol=1e-5)
    assert_close(found.boxes, torch.stack(boxes), atol=1e-5, rtol=1e-5)


def test_routes_differ_from_the_decoder_by_what_they_change() -> None:
    """With the layers' own feed-forward blocks, and with no token, a route is the decoder itself."""
    model = routed_dino(*all_routes()[1:]).train()
    with torch.no_grad():
        before, _ = sets_in_training(model)
        model.decoder.routes[0].ffns = copy.deepcopy(torch.nn.ModuleList(x.ffn for x in model.decoder.layers))
        model.decoder.routes[1].tokens.weight = torch.nn.Parameter(torch.zeros(0, DIM))
        after, _ = sets_in_training(model)
    for name in ("o2m_ffn", "o2m_tokens"):
        assert_close(after[name].logits, after["main"].logits, atol=1e-5, rtol=1e-5)
        assert_close(after[name].boxes, after["main"].boxes, atol=1e-5, rtol=1e-5)
        assert (before[name].logits - before["main"].logits).abs().max() > 1e-2


def test_queries_without_exchange_do_not_depend_on_each_other() -> None:
    model = routed_dino(L(CrossAttentionRoute)()).train()
    parts, memory = parts_and_memory(model)
    (main,) = (part for part in parts if part.name == "main")
    changed = main.content.clone()
    changed[:, 0] += 1
    with torch.no_grad():
        before = model.decoder([main], memory, model.head)
        main.content = changed
        after = model.decoder([main], memory, model.head)
    for name, blind in (("o2m", True), ("main", False)):
        moved = (before[name].logits - after[name].logits).abs().amax((0, 1, 3)) > 1e-4
        assert moved[0] and moved[1:].any().item() is not blind


def test_a_route_s_losses_are_those_of_its_pairs() -> None:
    """Pairs of the assigner, prime-sample weights exp(-rank / 1.5) of the quality s^0.25 u^0.75, and three times the
    number of objects as normaliser: the L1 loss of the last layer, summed pair by pair.
    """
    model = routed_dino(L(InstructionRoute)(embed_dim=DIM, assigner=L(OneToManyAssigner)(threshold=0.0)), align=True)
    sets, targets = sets_in_training(model)
    losses, preds = model.criterion(sets, targets), sets["o2m"]
    match = model.criterion.matcher(sets, targets)["o2m"]
    last = match.row == 1
    image, query, target = (x[last].tolist() for x in (match.image, match.query, match.target))
    pairs = list(zip(image, query, target, strict=True))
    assert len(pairs) > sum(targets.counts)
    logits, boxes = preds.logits[1].detach(), preds.boxes[1].detach()

    def quality(b: int, q: int, t: int) -> float:
        (x, y, w, h), (tx, ty, tw, th) = boxes[b, q].tolist(), targets.boxes[b, t].tolist()
        width = max(0.0, min(x + w / 2, tx + tw / 2) - max(x - w / 2, tx - tw / 2))
        height = max(0.0, min(y + h / 2, ty + th / 2) - max(y - h / 2, ty - th / 2))
        u = width * height / (w * h + tw * th - width * height + 1e-6)
        s = 1 / (1 + math.exp(-logits[b, q, targets.labels[b, t]].item()))
        return max(s**0.25 * u**0.75, 0.01)

    total = 0.0
    for b, q, t in pairs:
        better = [p for p in pairs if p[0] == b and p[2] == t and (-quality(*p), p[1]) < (-quality(b, q, t), q)]
        distance = (boxes[b, q] - targets.boxes[b, t]).abs().sum().item()
        total += math.exp(-len(better) / 1.5) * distance
    assert losses["loss_bbox_o2m"].item() == pytest.approx(5 * total / (3 * sum(targets.counts)), rel=1e-4)


def test_tokens_stand_before_each_group() -> None:
    """Queries of a group, or of a part of the same length, are decoded with the tokens as they are alone."""
    parts, memory = parts_and_memory(tiny_dino(GroupDINO))
    (main,) = (part for part in parts if part.name == "main")
    assert main.groups == GROUPS > 1
    model = routed_dino(
        L(InstructionRoute)(name="tokens", parts=["main", "other"], embed_dim=DIM, num_tokens=3)
    ).train()

    def decoded(*parts: QueryPart) -> dict[str, Predictions]:
        with torch.no_grad():
            return model.decoder(parts, memory, model.head)

    length = main.content.shape[1] // GROUPS
    grouped = decoded(main)["tokens"]
    groups = []
    for i in range(GROUPS):
        own = slice(i * length, (i + 1) * length)
        fields = dict(content=main.content[:, own], reference=main.reference[:, own])
        groups.append(dataclasses.replace(main, groups=1, **fields))
    rows = grouped.boxes.unflatten(0, (-1, GROUPS))  # (layers, groups, B, Q, 4)
    for i, group in enumerate(groups):
        assert_close(rows[:, i], decoded(group)["tokens"].boxes, atol=1e-5, rtol=1e-5)
    both = decoded(groups[0], dataclasses.replace(groups[1], name="other"))
    assert_close(both["tokens"].boxes, rows[:, 0], atol=1e-5, rtol=1e-5)
    assert_close(both["tokens_other"].boxes, rows[:, 1], atol=1e-5, rtol=1e-5)


def test_masks_hold_in_routes_with_self_attention() -> None:
    """A relation's bias is that of the route's own boxes; the tokens have none, and the relation gets a gradient."""
    node = deformable_node("dino")
    node.decoder._target_, node.decoder.routes = RoutedDecoder, all_routes()
    node.decoder.query_masks = [L(PositionRelation)(num_heads=node.decoder.layer.num_heads)]
    model = build(node)
    sets, _ = sets_in_training(model)
    weight = model.decoder.query_masks[0].projection.weight
    for name, depends in (("o2m", False), ("o2m_ffn", True), ("o2m_tokens", True)):
        (gradient,) = torch.autograd.grad(sets[name].logits.sum(), weight, retain_graph=True, allow_unused=True)
        assert (gradient is not None and bool(gradient.abs().sum() > 0)) is depends


def test_routes_read_nothing_back_from_the_device() -> None:
    """Forward and backward pass run on the meta device, whose tensors have no values to read; one image has too few
    tokens, so that some queries are padding.
    """
    model = routed_dino(L(CrossAttentionRoute)(), *all_routes()[1:], num_queries=60).to("meta").train()
    images = [torch.zeros(3, *size, device="meta") for size in ((40, 33), (16, 24))]
    memory = model.encoder(model.extract_features(images))
    parts = model.queries.main(memory, model.proposals(memory))
    assert all(part.valid is not None for part in parts)
    sets = model.decoder(parts, memory, model.head)
    assert all(preds.logits.is_meta for preds in sets.values()) and len(sets) == 4
    sum(preds.logits.sum() + preds.boxes.sum() for preds in sets.values()).backward()


@pytest.mark.parametrize(("name", "parent"), BESIDE_THEIR_PARENTS.items())
def test_configs_add_the_routes_alone(name: str, parent: str) -> None:
    """With the numbers of the papers, and blocks of the decoder's size."""
    cfg, plain = config(name).copy(), config(parent)
    routes, decoder = cfg.model.decoder.pop("routes"), cfg.model.decoder
    assert decoder._target_ is RoutedDecoder
    decoder._target_ = plain.model.decoder._target_
    assert as_json(cfg.model) == as_json(plain.model)
    assert all(route.scale == 3 for route in routes)
    if "dac" in name:
        assert [(x.name, list(x.parts)) for x in routes] == [("o2m", ["main", "dn"])]
    else:
        own_ffn, tokens = routes
        assert (own_ffn.num_layers, own_ffn.ffn_dim) == (decoder.num_layers, decoder.layer.ffn_dim)
        assert own_ffn.embed_dim == tokens.embed_dim == decoder.layer.embed_dim and tokens.num_tokens == 10
    assigner = OneToManyAssigner()
    assert (assigner.threshold, assigner.most, assigner.costs[0].share) == (0.4, 6, 0.7)


def test_misfits_are_named() -> None:
    with pytest.raises(ConfigError, match="a second set named 'o2m'"):
        sets_in_training(routed_dino(L(CrossAttentionRoute)(), L(CrossAttentionRoute)()))
    with pytest.raises(ConfigError, match="a route of the parts other, but"):
        sets_in_training(routed_dino(L(CrossAttentionRoute)(parts=["other"])))
    with pytest.raises(ConfigError, match=r"FeedForwardRoute .* is 5, but model.decoder.num_layers is 2"):
        routed_dino(L(FeedForwardRoute)(num_layers=5, embed_dim=DIM))
    node = small_model("SMCA/smca_r50_50ep.py", **SIZES).decoder.layer
    with pytest.raises(ConfigError, match="ModulatedDecoderLayer, whose blocks"):
        build(L(RoutedDecoder)(layer=node, num_layers=1, routes=[L(CrossAttentionRoute)()]))
    with pytest.raises(ConfigError, match=rf"FeedForwardRoute .* is 5, but that of model.decoder.layer is {DIM}"):
        routed_dino(L(FeedForwardRoute)(num_layers=2, embed_dim=5))
    with pytest.raises(ConfigError, match=rf"InstructionRoute .* is 5, but that of model.decoder.layer is {DIM}"):
        routed_dino(L(InstructionRoute)(embed_dim=5))
