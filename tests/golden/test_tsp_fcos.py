"""TSP-FCOS against the numbers of the official code: assignment, forward pass, detections, a training step."""

import pytest
import torch
from detectron2.structures import Instances

from align_detr.projects.tsp.checkpoint import convert_official_tsp_fcos
from align_detr.projects.tsp.fcos import selection
from align_detr.projects.tsp.fcos.assign import PointAssigner
from align_detr.projects.tsp.fcos.geometry import centerness
from align_detr.projects.tsp.fcos.head import PointPredictions
from support.golden import Fixture, fixtures
from support.tsp_fcos import bare_points, check_losses, close, detector, features, matcher, per_image, sizes, targets_of


@fixtures("tsp/fcos_assign*")
@pytest.mark.parametrize("tag, radius", [("center_sampling", 1.5), ("inside_box", None)])
def test_assignment(fixture: Fixture, tag: str, radius: float | None) -> None:
    points, targets = bare_points(fixture), targets_of(fixture)
    torch.testing.assert_close(points.locations, fixture.output["locations"], rtol=0, atol=0)
    assert points.levels.bincount().tolist() == fixture.output["level_counts"].tolist()
    found = PointAssigner(radius=radius)(points, targets)
    labels = fixture.output[f"{tag}/labels"]
    assert torch.equal(found.labels, torch.where(labels == fixture.meta["config"]["num_classes"], -1, labels))
    assert torch.equal(found.owner, per_image(fixture.output[f"{tag}/target_inds"], targets.counts))
    assert torch.equal(found.allowed.sum(-1), (found.owner >= 0).long())

    owned = found.boxes.gather(1, found.owner.clamp(min=0)[..., None].expand(-1, -1, 4))
    corners = torch.cat([points.locations - owned[..., :2], owned[..., 2:] - points.locations], -1)
    sides = corners / points.strides[:, None]
    foreground = found.owner >= 0
    expected = fixture.output[f"{tag}/reg_targets"]
    close(torch.where(foreground[..., None], sides, 0.0), expected)
    close(torch.where(foreground, centerness(sides), 0.0), fixture.output[f"{tag}/centerness_targets"])


@fixtures("tsp/fcos_forward_eval*")
def test_forward(fixture: Fixture) -> None:
    """The forward pass equals the official one.

    The official mask is stretched where sizes are not multiples of 32. Only the positions depend on it, so the recorded
    positions are used there.
    """
    model = detector(fixture).eval()
    image_sizes, padded = sizes(fixture)
    aligned = all(side % 32 == 0 for size in [*image_sizes, padded] for side in size)
    with torch.no_grad():
        points = model.points(features(fixture), image_sizes, padded)
        fois = model.selection(points)
        memory = model.encoding(points, fois)
        close(memory.tokens, fixture.output["encoder_input"])
        if aligned:
            close(memory.position, fixture.output["encoder_pos"])
        else:
            assert not torch.allclose(memory.position, fixture.output["encoder_pos"], atol=1e-2)
            memory.position = fixture.output["encoder_pos"]
        encoded = model.encoder(memory).tokens
        preds = model.head(encoded, fois)
    close(points.logits, fixture.output["local_logits"])
    close(model.selection.scores(points), fixture.output["foi_scores"])
    assert torch.equal(fois.index, fixture.output["foi_idx"])
    assert torch.equal(fois.levels, fixture.output["foi_levels"])
    close(fois.locations, fixture.output["foi_locations"])
    assert memory.padding is None
    close(encoded, fixture.output["encoder_output"])
    check_predictions(fixture, preds)
    check_detections(fixture, model.postprocess(preds))


def check_predictions(fixture: Fixture, preds: PointPredictions) -> None:
    close(preds.logits[0], fixture.output["logits"])
    close(preds.centerness[0], fixture.output["ctrness"])
    close(preds.distances[0], fixture.output["reg"])
    close(preds.pixel_boxes(), fixture.output["boxes_xyxy"])


def check_detections(fixture: Fixture, detections: list[Instances]) -> None:
    """Compare scores by value, and boxes and classes where neighbouring scores are far enough apart."""
    for i, found in enumerate(detections):
        scores = fixture.output[f"det_scores_{i}"]
        close(found.scores, scores)
        gaps = torch.cat([torch.ones(1), scores[:-1] - scores[1:], torch.ones(1)])
        clear = (gaps[:-1] > 2e-6) & (gaps[1:] > 2e-6)
        assert clear.float().mean() > 0.8
        close(found.pred_boxes.tensor[clear], fixture.output[f"det_boxes_{i}"][clear])
        assert torch.equal(found.pred_classes[clear], fixture.output[f"det_classes_{i}"][clear])


@fixtures("tsp/fcos_train_step*")
def test_train_step(fixture: Fixture) -> None:
    model, targets = detector(fixture), targets_of(fixture)
    inputs = {name: x.clone().requires_grad_() for name, x in features(fixture).items()}
    points = model.points(inputs, *sizes(fixture))
    assignment = model.assigner(points, targets)
    close(points.logits, fixture.output["local_logits"])
    labels = fixture.output["labels"]
    assert torch.equal(assignment.labels, torch.where(labels == model.num_classes, -1, labels))

    foreground = assignment.owner >= 0
    close(model.selection.scores(points, foreground), fixture.output["foi_scores"])
    fois = model.selection.eval()(points, foreground)  # without the drop
    assert torch.equal(fois.index, fixture.output["topk_idx"])
    fois = model.selection.drop(points, fois, fixture.input["draw_kept_ranks"])
    assert torch.equal(fois.index, fixture.output["foi_idx"])

    preds = model.predict(points, fois)
    for name, value in {"logits": preds.logits, "reg": preds.distances, "ctrness": preds.centerness}.items():
        close(value[0], fixture.output[name], name)
    match = matcher()({"main": preds.assigned(assignment)}, targets)["main"]
    starts = torch.tensor([0, *targets.counts]).cumsum(0)
    found = torch.stack([starts[match.image] + match.target, match.image * fois.index.shape[1] + match.query])
    expected = torch.stack([fixture.output["matched_gt_index"], fixture.output["matched_pred_index"]])
    assert found[:, found[0].argsort()].tolist() == expected[:, expected[0].argsort()].tolist()

    losses = model.criterion(preds, points, assignment, targets)
    check_losses(losses, fixture.loss, "")
    sum(losses.values()).backward()
    gradients = convert_official_tsp_fcos({k: v for k, v in fixture.grad.items() if not k.startswith("input_")})
    found = {name: p.grad for name, p in model.named_parameters()}
    assert found.keys() == gradients.keys()
    for name, expected in gradients.items():
        close(found[name], expected, name)
    for name, x in inputs.items():
        close(x.grad, fixture.grad[f"input_{name}"], name)


@fixtures("tsp/fcos_train_step*")
def test_number_kept(fixture: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    count, u = fixture.meta["config"]["num_proposal"], fixture.input["draw_uniform"][0]
    monkeypatch.setattr(selection.torch, "rand", lambda *args, **options: u)
    assert len(selection.draw_ranks(count, (0.7, 1.0))) == int(fixture.output["num_kept"])
