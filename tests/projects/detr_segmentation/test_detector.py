"""Detectors that segment: the same boxes as their parents, masks in the output's size, the same ones in any batch."""

import copy
from typing import Any

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from omegaconf import DictConfig
from torch.testing import assert_close

from align_detr.modeling import DETR, DistinctQueries, FusedPostprocess, SharedHead, SoftmaxHead
from align_detr.projects.detr_segmentation import GaussianBoxAttention, PanopticMerge, SegmentationDETR
from align_detr.projects.detr_segmentation.masks import reading
from align_detr.projects.detr_segmentation.meta_arch import query_numbers
from align_detr.structures import MAIN
from support.shrink import small_model
from support.subject import images, randomise

DETR_NAME, DINO_NAME = (
    "DETRSegmentation/detr_r50_panoptic_25ep.py",
    "DETRSegmentation/align_dino_r50_4scale_segmentation_12ep.py",
)
PARENTS = {DETR_NAME: "detr/detr_r50_500ep.py", DINO_NAME: "align_detr/align_dino_r50_4scale_12ep.py"}


def build(node: DictConfig) -> SegmentationDETR:
    torch.manual_seed(6)
    model = instantiate(node)
    randomise(model)
    return model.eval()


def detector(name: str, **sizes: Any) -> SegmentationDETR:
    return build(small_model(name, **sizes))


@torch.no_grad()
def run(model: DETR, batch: list[dict]) -> list[dict[str, Any]]:
    return model(batch)


@pytest.mark.parametrize("name", PARENTS)
def test_boxes_are_the_parent_s_to_the_last_bit(name: str) -> None:
    """The parent's weights load, and the detector's without `masks` load into the parent."""
    model, parent = detector(name), instantiate(small_model(PARENTS[name])).eval()
    shared = {key: value for key, value in model.state_dict().items() if not key.startswith("masks.")}
    parent.load_state_dict(shared, strict=True)
    report = copy.deepcopy(model).load_state_dict(parent.state_dict(), strict=False)
    assert all(key.startswith("masks.") for key in report.missing_keys) and not report.unexpected_keys
    model.panoptic = None
    for ours, theirs in zip(run(model, images(1, 0, 2)), run(parent, images(1, 0, 2)), strict=True):
        found, expected = ours["instances"], theirs["instances"]
        assert set(found.get_fields()) == {*expected.get_fields(), "pred_masks"}
        assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
        assert torch.equal(found.scores, expected.scores) and torch.equal(found.pred_classes, expected.pred_classes)


@pytest.mark.parametrize("name", PARENTS)
def test_masks_are_those_of_the_detections_queries(name: str) -> None:
    """The query of each detection has its score, its box and its mask; another query's mask is another one."""
    model = detector(name)
    model.panoptic = None
    (image, *_) = images(1)
    size = (image["height"], image["width"])
    found = run(model, [image])[0]["instances"]
    with torch.no_grad():
        sets, features = model._predict_images([model.normalize(image["image"])], None)
        preds = sets[MAIN]
        masks = model.masks.of_image(features, preds.hidden[0], preds.boxes[-1, 0], 0, size) > 0
        again = torch.tensor([5, 2, 2, 0, 5])  # a query may have several classes
        of_queries = model.masks.masks_of_image(features, preds.hidden[0], preds.boxes[-1, 0], again, 0, size)
        (detections,) = model.postprocess(preds, [size])
        (queries,) = query_numbers(model.postprocess, preds, 1)
    assert of_queries.dtype == torch.bool and (of_queries != masks[again]).float().mean() < 1e-3
    scores = preds.logits[-1, 0].softmax(-1)[:, :-1] if preds.softmax else preds.logits[-1, 0].sigmoid()
    assert torch.equal(scores[queries, detections.pred_classes], detections.scores)
    scale = torch.tensor([size[1], size[0]])
    assert_close(detections.pred_boxes.get_centers(), preds.boxes[-1, 0, queries, :2] * scale, atol=1e-3, rtol=0)
    assert len(queries.unique()) > 1 and len(found) == len(queries)
    assert (found.pred_masks != masks[queries]).float().mean() < 1e-3
    assert (found.pred_masks != masks[queries.roll(1)]).any()


@pytest.mark.parametrize("name", PARENTS)
def test_masks_are_the_same_in_any_batch_and_in_the_output_s_size(name: str) -> None:
    """But for pixels whose logit is nearly 0."""
    model, batch = detector(name), images(1, 0, 2)
    batch[0].update(height=150, width=100)
    together = run(model, batch)
    for image, found in zip(batch, together, strict=True):
        alone = run(model, [image])[0]["instances"]
        masks = found["instances"].pred_masks
        assert masks.shape == (len(alone), image["height"], image["width"]) and masks.dtype == torch.bool
        order = [x.scores.sort(descending=True, stable=True).indices for x in (found["instances"], alone)]
        assert (masks[order[0]] != alone.pred_masks[order[1]]).float().mean() < 0.01
        assert 0.01 < masks.float().mean() < 0.99


@pytest.mark.parametrize(
    ("name", "stride"), [(DETR_NAME, 32), (DINO_NAME, 32), ("DETRSegmentation/digits_panoptic.py", 16)]
)
def test_cells_are_those_of_the_map_whatever_the_batch_is(name: str, stride: int) -> None:
    """Sizes that are no multiples of the stride: alone, in a batch, and padded in training."""
    model = detector(name)
    pixels = [model.normalize(x["image"]) for x in images(1, 0, 2)]
    expected = torch.tensor([[x.shape[2] / stride, x.shape[1] / stride] for x in pixels])
    with torch.no_grad():
        for training in (False, True):
            model.backbone.train(training)
            model.training = training
            batch = model._predict_images(pixels, None)[1]
            assert_close(batch.cells(), expected)
            for index, x in enumerate(pixels):
                assert_close(model._predict_images([x], None)[1].cells(), expected[index : index + 1])
                assert_close(batch.of_image(index).cells(), expected[index : index + 1])


def test_a_panoptic_output_has_things_as_instances_and_every_pixel() -> None:
    node = small_model(DETR_NAME)
    node.panoptic.update(num_things=2, score_threshold=0.0, least_area=0)
    model = build(node)
    torch.nn.init.constant_(model.head.class_embed.bias[-1:], -20.0)  # every query finds something
    for image, output in zip(images(1, 0), run(model, images(1, 0)), strict=True):
        ids, segments = output["panoptic_seg"]
        assert ids.shape == (image["height"], image["width"]) == output["instances"].image_size
        assert sorted(ids.unique().tolist()) == [s["id"] for s in segments] and segments
        assert all(s["area"] == (ids == s["id"]).sum() for s in segments)
        assert all(s["isthing"] == (s["category_id"] < 2) for s in segments)
        assert (output["instances"].pred_classes < 2).all()
        assert len({s["category_id"] for s in segments if not s["isthing"]}) == sum(not s["isthing"] for s in segments)


def test_without_a_detection_there_are_no_masks() -> None:
    model = detector(DETR_NAME)
    model.panoptic = PanopticMerge(num_things=0)  # everything is stuff, of scores too low
    (output,) = run(model, images(1))
    assert output["instances"].pred_masks.shape == (0, 96, 70)
    assert output["panoptic_seg"][1] == [] and not output["panoptic_seg"][0].any()


def test_any_postprocess_says_its_queries() -> None:
    """Also one that fuses scores before it selects."""
    model = detector(DINO_NAME)
    with torch.no_grad():
        sets, _ = model._predict_images([model.normalize(x["image"]) for x in images(1)], None)
    preds = sets[MAIN]
    preds.iou = torch.randn(preds.logits.shape[:-1])
    fused = FusedPostprocess(postprocess=model.postprocess)
    (found,), (queries,) = fused(preds, [(10, 20)]), query_numbers(fused, preds, 1)
    size = torch.tensor([20.0, 10.0])
    assert_close(found.pred_boxes.get_centers(), preds.boxes[-1, 0, queries, :2] * size, atol=1e-4, rtol=1e-4)


def test_groups_of_queries_get_the_masks_of_their_own_queries() -> None:
    """Group-DETR: the loss is the mean over the groups, each of which has pairs of its own."""
    base, node = small_model(DETR_NAME, dropout=0.0), small_model("group_detr/group_detr_r50_50ep.py", dropout=0.0)
    node["_target_"] = base["_target_"]
    node.masks, node.criterion.losses = base.masks, [*node.criterion.losses, *base.criterion.losses[3:]]
    node.backbone = base.backbone
    node.masks.attention["_target_"] = GaussianBoxAttention  # also reads the group's own boxes
    model = build(node).train()
    batch = images(2, 1)
    targets, pixels = model.targets(batch), [model.normalize(x["image"]) for x in batch]
    losses = model.losses(pixels, targets)
    sets = model.predict_in_training(pixels, targets)
    preds = sets[MAIN]
    match = model.criterion.matcher({MAIN: preds.float()}, targets)[MAIN]
    groups, queries = preds.groups, preds.boxes.shape[2]
    assert groups > 1 and preds.hidden.shape[1] == groups * queries
    last = [
        p for p in zip(match.row, match.image, match.query, match.target, strict=True) if p[0] >= 6 * groups - groups
    ]
    rows = len(preds.boxes)
    last = [p for p in zip(match.row, match.image, match.query, match.target, strict=True) if p[0] >= rows - groups]
    total = 0.0
    for row, image, query, target in last:
        place = (row - (rows - groups)) * queries + query
        hidden, box = preds.hidden[image, place], preds.boxes[row, image, query]
        logits = model.masks(preds.masks.features, hidden[None], box[None], image[None])
        p = torch.nn.functional.interpolate(logits[None], size=(96, 70), mode="bilinear")[0, 0].sigmoid()
        mask = torch.zeros(96, 70)
        own = batch[image]["instances"].gt_masks.tensor[target]
        mask[: own.shape[0], : own.shape[1]] = own
        total = total + (1 - (2 * (p * mask).sum() + 1) / (p.sum() + mask.sum() + 1)) / 3
    assert len(last) == 3 * groups
    assert_close(losses["loss_dice"], total / groups, rtol=1e-4, atol=1e-6)


def test_masks_go_with_distinct_queries() -> None:
    """These read classes between the layers, from the head that hands on what it reads; boxes are as without masks."""
    node, parent = small_model(DINO_NAME), small_model(PARENTS[DINO_NAME])
    for each in (node, parent):
        each.decoder.query_masks = [L(DistinctQueries)(iou=0.3)]
    model, plain = build(node), instantiate(parent).eval()
    plain.load_state_dict({key: x for key, x in model.state_dict().items() if not key.startswith("masks.")})
    (found,), (expected,) = run(model, images(1)), run(plain, images(1))
    assert torch.equal(found["instances"].scores, expected["instances"].scores)
    assert found["instances"].pred_masks.shape == (len(expected["instances"]), 96, 70)


def test_classes_between_the_layers_are_the_head_s() -> None:
    """A head with "no object" says so through the one that hands on what it reads."""
    head = SharedHead(num_classes=3, embed_dim=8, softmax=True)
    x, between = torch.randn(1, 2, 8), reading(head)
    assert between.softmax is True and torch.equal(between.classify(x, 0), head.classify(x, 0))
    assert not hasattr(reading(SoftmaxHead(num_classes=3, embed_dim=8)), "classify")
