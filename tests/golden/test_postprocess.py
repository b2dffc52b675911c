"""Detections against the recorded post-processing."""

import torch
from torch.testing import assert_close

from align_detr.modeling.postprocess import SoftmaxPostprocess, TopKPostprocess
from align_detr.structures import Predictions
from support.golden import Fixture, fixtures


@fixtures("postprocess_detr*")
def test_softmax_postprocess(fixture: Fixture) -> None:
    preds = Predictions(
        logits=fixture.input["pred_logits"][None], boxes=fixture.input["pred_boxes"][None], softmax=True
    )
    results = SoftmaxPostprocess()(preds, [tuple(size) for size in fixture.input["target_sizes_hw"].tolist()])
    assert_close(torch.stack([r.scores for r in results]), fixture.output["scores"], atol=1e-5, rtol=0)
    assert torch.equal(torch.stack([r.pred_classes for r in results]), fixture.output["labels"])
    assert_close(torch.stack([r.pred_boxes.tensor for r in results]), fixture.output["boxes"], atol=1e-2, rtol=1e-5)


@fixtures("postprocess_topk*", "postprocess_raw_deformable*")
def test_top_k_postprocess(fixture: Fixture) -> None:
    preds = Predictions(logits=fixture.input["pred_logits"][None], boxes=fixture.input["pred_boxes"][None])
    sizes = fixture.input.get("image_sizes_hw", fixture.input.get("target_sizes_hw"))
    boxes = fixture.output.get("boxes_xyxy", fixture.output.get("boxes"))
    postprocess = TopKPostprocess(num_detections=fixture.output["scores"].shape[1])
    results = postprocess(preds, [tuple(size) for size in sizes.tolist()])
    assert_close(torch.stack([r.scores for r in results]), fixture.output["scores"], atol=1e-5, rtol=0)
    assert torch.equal(torch.stack([r.pred_classes for r in results]), fixture.output["labels"])
    assert_close(torch.stack([r.pred_boxes.tensor for r in results]), boxes, atol=1e-2, rtol=1e-5)
