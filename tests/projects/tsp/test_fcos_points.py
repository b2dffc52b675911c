"""Assignment, selection and encoding of points."""

import pytest
import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn
from torch.testing import assert_close

from align_detr.errors import ConfigError
from align_detr.layers.positional import SinePositionEncoding
from align_detr.modeling.encoder import Encoder, PreNormEncoderLayer
from align_detr.projects.tsp.encoder import token_set
from align_detr.projects.tsp.fcos import selection
from align_detr.projects.tsp.fcos.assign import PointAssigner, SharedPointAssigner
from align_detr.projects.tsp.fcos.points import Points, PointTowers
from align_detr.projects.tsp.fcos.selection import FoISelection
from align_detr.structures import Targets
from support.detectors import tiny_tsp_fcos
from support.inputs import image_input


def points_of(
    image_sizes: list[tuple[int, int]], padded: tuple[int, int], strides: tuple[int, ...] = (8, 16)
) -> Points:
    """Return points with random scores."""
    torch.manual_seed(0)
    names = [f"p{i}" for i in range(len(strides))]
    towers = PointTowers(
        in_features=names,
        strides=strides,
        channels=32,
        num_convs=0,
        num_classes=3,
        position=SinePositionEncoding(num_features=4),
    )
    maps = {
        name: torch.randn(len(image_sizes), 32, -(-padded[0] // s), -(-padded[1] // s))
        for name, s in zip(names, strides, strict=True)
    }
    with torch.no_grad():
        points = towers(maps, image_sizes, padded)
    points.logits = torch.randn_like(points.logits)
    return points


def targets_of(boxes: list[list[float]], size: tuple[int, int] = (64, 64)) -> Targets:
    instances = Instances(
        size, gt_boxes=Boxes(torch.tensor(boxes).view(-1, 4)), gt_classes=torch.arange(len(boxes)) % 3
    )
    return Targets.from_instances([instances], num_classes=3, device="cpu")


def owned(points: Points, owner: Tensor, target: int, level: int) -> set[tuple[float, float]]:
    return {tuple(x) for x in points.locations[(owner[0] == target) & (points.levels == level)].tolist()}


def test_points_lie_in_the_middle_of_their_cells() -> None:
    points = points_of([(16, 24)], (16, 24))
    assert points.locations.tolist() == [
        [4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12], [8, 8], [24, 8],
    ]  # fmt: skip
    assert points.strides.tolist() == [8] * 6 + [16] * 2 and points.levels.tolist() == [0] * 6 + [1] * 2


def test_a_point_is_near_the_centre_and_on_the_right_level() -> None:
    points = points_of([(64, 64)], (64, 64))
    targets = targets_of([[4.0, 4.0, 44.0, 44.0]])
    found = PointAssigner(sizes=[28])(points, targets).owner
    # The centre is (24, 24). At stride 8, within 12 pixels of it: 20 and 28, while 12 and 36 lie on the edge, which is
    # outside. The farthest side is 24 pixels away from each, and level 0 goes up to 28.
    assert owned(points, found, 0, level=0) == {(20, 20), (28, 20), (20, 28), (28, 28)}
    # At stride 16, within 24 pixels: 8, 24 and 40, with farthest sides at 36, 20 and 36: level 1 begins with 28.
    assert owned(points, found, 0, level=1) == {
        (8, 8),
        (8, 24),
        (8, 40),
        (24, 8),
        (24, 40),
        (40, 8),
        (40, 24),
        (40, 40),
    }
    for bound, fine, coarse in [(24, 4, 8), (23, 0, 8), (20, 0, 9), (36, 4, 8), (37, 4, 0)]:  # ends belong to both
        found = PointAssigner(sizes=[bound])(points, targets).owner
        assert (len(owned(points, found, 0, 0)), len(owned(points, found, 0, 1))) == (fine, coarse), bound


def test_without_a_radius_the_whole_box_counts() -> None:
    points = points_of([(64, 64)], (64, 64))
    found = PointAssigner(sizes=[100], radius=None)(points, targets_of([[4.0, 4.0, 44.0, 44.0]]))
    # strictly inside: 4 and 44 lie on the edge
    assert owned(points, found.owner, 0, level=0) == {
        (float(x), float(y)) for x in range(12, 44, 8) for y in range(12, 44, 8)
    }


def test_the_smallest_object_owns_a_point_and_the_first_on_ties() -> None:
    points = points_of([(64, 64)], (64, 64))
    nested = targets_of([[0.0, 0.0, 60.0, 60.0], [20.0, 20.0, 40.0, 40.0], [20.0, 20.0, 40.0, 40.0]])
    found = PointAssigner(sizes=[100], radius=None)(points, nested)
    at = (points.locations == 28).all(-1)
    assert found.owner[0, at].tolist() == [1] and found.labels[0, at].tolist() == [1]
    assert found.allowed[0, at].tolist() == [[False, True, False]]
    outside = (points.locations == 12).all(-1)
    assert found.owner[0, outside].tolist() == [0]
    shared = SharedPointAssigner(sizes=[100])(points, nested)
    assert shared.allowed[0, at].tolist() == [[True, True, True]] and torch.equal(shared.owner, found.owner)


def test_padded_targets_own_nothing() -> None:
    points = points_of([(64, 64), (64, 64)], (64, 64))
    some = targets_of([[4.0, 4.0, 44.0, 44.0], [30.0, 30.0, 60.0, 60.0]]).instances[0]
    none = Instances((64, 64), gt_boxes=Boxes(torch.zeros(0, 4)), gt_classes=torch.zeros(0, dtype=torch.int64))
    targets = Targets.from_instances([none, some], num_classes=3, device="cpu")
    found = PointAssigner(sizes=[30])(points, targets)
    assert (found.owner[0] == -1).all() and (found.labels[0] == -1).all() and not found.allowed[0].any()
    assert (found.owner[1] >= 0).any()


def test_assignment_needs_boxes_in_pixels() -> None:
    targets = Targets(labels=torch.zeros(1, 1, dtype=torch.int64), boxes=torch.full((1, 1, 4), 0.5), counts=[1])
    with pytest.raises(ConfigError, match=r"have no boxes in pixels.*: build them with Targets\.from_instances\.$"):
        PointAssigner()(points_of([(64, 64)], (64, 64)), targets)


def test_selection_leaves_padding_out() -> None:
    points = points_of([(64, 64), (32, 40)], (64, 64))
    points.logits[1] = torch.where(points.padding[1, :, None], 5.0, points.logits[1])
    inside = 4 * 5 + 2 * 3  # 32 x 40 pixels at strides 8 and 16
    assert points.inside == [80, inside] and int((~points.padding[1]).sum()) == inside
    found = FoISelection(num_queries=inside).eval()(points)
    assert found.valid is None and not points.padding.gather(1, found.index).any()
    more = FoISelection(num_queries=inside + 4).eval()(points)
    assert more.valid.sum(1).tolist() == [inside + 4, inside]
    official = FoISelection(num_queries=inside, keep_padding=True).eval()(points)
    assert official.valid is None and points.padding[1, official.index[1]].all()


def test_selection_takes_the_best_and_all_of_a_small_image() -> None:
    points = points_of([(16, 24)], (16, 24))
    best = points.logits.amax(-1)[0]
    found = FoISelection(num_queries=3).eval()(points)
    assert found.index[0].tolist() == best.argsort(descending=True)[:3].tolist()
    assert FoISelection(num_queries=700).eval()(points).index.shape == (1, 8)


def test_scores_of_half_precision_are_not_rounded_once_more() -> None:
    """Neighbouring bfloat16 logits near 5 would have the same bfloat16 probability."""
    points = points_of([(16, 24)], (16, 24))
    points.logits = torch.full_like(points.logits, 5.0).bfloat16()
    points.logits[0, 6] = 5.03125
    scores = FoISelection().scores(points)
    assert scores.dtype == torch.float32 and FoISelection(num_queries=1).eval()(points).index.tolist() == [[6]]


def test_foreground_points_rank_above_one_half() -> None:
    points = points_of([(16, 24)], (16, 24))
    points.logits = torch.linspace(-9, -2, 8)[None, :, None].expand(-1, -1, 3)
    foreground = torch.zeros(1, 8, dtype=torch.bool)
    foreground[0, 2] = True
    assert FoISelection(num_queries=1).eval()(points, foreground).index.tolist() == [[2]]
    assert FoISelection(num_queries=1, boost=False).eval()(points, foreground).index.tolist() == [[7]]
    scores = FoISelection().scores(points, foreground)[0]
    assert_close(scores[2], (torch.sigmoid(torch.tensor(-7.0)) + 1) / 2)
    assert_close(scores[3], torch.sigmoid(torch.tensor(-6.0)))


@pytest.mark.parametrize("keep, low, high", [((0.7, 1.0), 35, 50), ((0.3, 0.3), 15, 15), ((1.0, 1.0), 50, 50)])
def test_random_drop(keep: tuple[float, float], low: int, high: int) -> None:
    points = points_of([(64, 64), (64, 64)], (64, 64))
    selection = FoISelection(num_queries=50, keep=keep)
    everything = selection.eval()(points).index
    torch.manual_seed(0)
    found = [selection.train()(points).index for _ in range(20)]
    lengths = {x.shape[1] for x in found}
    assert low <= min(lengths) and max(lengths) <= high and (len(lengths) > 1) == (low < high)
    worst_kept = 0
    for x in found:  # the same ranks of both images
        ranks = [[everything[b].tolist().index(i) for i in x[b].tolist()] for b in range(2)]
        assert ranks[0] == ranks[1] and len(set(ranks[0])) == len(ranks[0])
        worst_kept += max(ranks[0]) >= x.shape[1]
    assert (worst_kept > 0) == (keep != (1.0, 1.0)), "any may be dropped, not the worst"


def test_one_token_is_always_kept() -> None:
    assert [len(selection.draw_ranks(1, (0.7, 1.0))) for _ in range(5)] == [1] * 5


@pytest.mark.parametrize("keep", [(0.0, 1.0), (0.8, 0.7), (0.7, 1.2)])
def test_shares_that_cannot_be(keep: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="model.selection.keep"):
        FoISelection(keep=keep)


def test_missing_map_is_named() -> None:
    with pytest.raises(ConfigError, match="names 'p5', but the backbone gives p3"):
        tiny_tsp_fcos().points({"p3": torch.zeros(1, 64, 2, 2), "p4": torch.zeros(1, 64, 1, 1)}, [(16, 16)], (16, 16))


def test_encoder_ignores_padding_tokens_and_order() -> None:
    torch.manual_seed(0)
    layer = PreNormEncoderLayer(embed_dim=16, num_heads=2, ffn_dim=32, dropout=0.1)
    encoder = Encoder(layer=layer, num_layers=3, norm=nn.LayerNorm(16)).eval()
    assert not torch.equal(encoder.layers[0].self_attn.in_proj_weight, encoder.layers[1].self_attn.in_proj_weight)
    tokens, position = torch.randn(2, 9, 16), torch.randn(2, 9, 16)
    valid = torch.ones(2, 9, dtype=torch.bool)
    valid[:, 6:] = False
    plain = encoder(token_set(tokens[:, :6], position[:, :6], None)).tokens
    padded = encoder(token_set(tokens, position, valid)).tokens
    assert_close(padded[:, :6], plain)
    order = torch.randperm(6)
    assert_close(encoder(token_set(tokens[:, order], position[:, order], None)).tokens, plain[:, order])


def test_an_image_of_padding_alone_is_finite() -> None:
    valid = torch.tensor([[True, False], [False, False]])
    memory = token_set(torch.zeros(2, 2, 4), torch.zeros(2, 2, 4), valid)
    assert memory.padding.tolist() == [[False, True], [False, False]]


def test_small_images_of_a_batch_train_with_hidden_tokens() -> None:
    """If there are more tokens than points inside the image, the surplus changes no loss."""
    images = [image_input(32, 32, 2), image_input(96, 96, 2)]
    model = tiny_tsp_fcos(num_queries=60, keep=(1.0, 1.0)).train()
    points = model.extract_points([model.normalize(x["image"]) for x in images])
    targets = Targets.from_instances([x["instances"] for x in images], num_classes=3, device="cpu")
    assignment = model.assigner(points, targets)
    fois = model.selection(points, assignment.owner >= 0)
    assert points.inside[0] == 16 + 4 + 1 and fois.valid.sum(1).tolist() == [21, 60]
    preds = model.predict(points, fois)
    before = model.criterion(preds, points, assignment, targets)
    hidden = ~fois.valid[None, ..., None]
    for name in ("logits", "distances", "boxes"):
        setattr(preds, name, torch.where(hidden, getattr(preds, name).detach() + 3, getattr(preds, name)))
    after = model.criterion(preds, points, assignment, targets)
    for name, loss in before.items():
        assert_close(loss, after[name])
    found = model.postprocess(preds)[0]
    assert len(found) > 0 and (found.scores > 0).all()


def test_extra_levels_of_one_value_train_as_they_evaluate() -> None:
    """Batch norm refuses one value per channel; levels with more train their norms."""
    from align_detr.projects.tsp.backbone import ExtraLevels

    torch.manual_seed(0)
    levels = ExtraLevels(channels=4, norm="BN").train()
    p6, p7 = levels(torch.randn(1, 4, 4, 3))
    assert p6.shape[-2:] == (2, 2) and p7.shape == (1, 4, 1, 1)
    assert levels.p6.norm.running_mean.any() and not levels.p7.norm.running_mean.any()
    levels(torch.randn(2, 4, 4, 3))
    assert levels.p7.norm.training and levels.p7.norm.running_mean.any()
