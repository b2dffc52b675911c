"""IA-BCE and prime-sample weighting by themselves, against the recorded numbers."""

import torch
from torch.testing import assert_close

from align_detr.modeling.losses import IABCELoss, alignment_quality
from align_detr.modeling.losses.quality import matched_iou, matched_logits
from align_detr.modeling.weighting import PrimeSampleWeighting, rank_in_bag
from align_detr.structures import Match, Predictions
from support.golden import Fixture, fixtures


@fixtures("ia_bce_*")
def test_ia_bce(fixture: Fixture) -> None:
    meta, targets = fixture.meta, fixture.targets()
    logits = fixture.input["pred_logits"][None].clone().requires_grad_()
    boxes = fixture.input["pred_boxes"][None].clone().requires_grad_()
    preds = Predictions(logits=logits, boxes=boxes)
    image = fixture.input["batch_idx"]
    match = Match(torch.zeros_like(image), image, fixture.input["match_src_idx"], fixture.input["match_tgt_idx"])
    iou = matched_iou(preds, targets, match)
    assert_close(iou, fixture.output["iou"], rtol=0, atol=1e-5)
    quality = alignment_quality(matched_logits(preds, targets, match).sigmoid(), iou, meta["alpha"])
    assert_close(quality, fixture.output["t_before_rank"], rtol=0, atol=1e-5)
    rank = rank_in_bag(image * 1000 + match.target, quality, match.query)
    assert torch.equal(rank, fixture.output["rank"].long())

    weighted = PrimeSampleWeighting(alpha=meta["alpha"], tau=meta["tau"])(preds, targets, match)
    assert_close(weighted.weight, fixture.output["rank_weight"], rtol=2e-5, atol=0)
    loss = IABCELoss(alpha=meta["alpha"], gamma=meta["gamma"])
    for which, variant in (("with_rank", weighted), ("no_rank", match)):
        value = loss(preds, targets, variant, torch.tensor(meta["num_boxes"]))[0]
        assert_close(value, fixture.loss[which], rtol=2e-5, atol=0)
        gradients = torch.autograd.grad(value, [logits, boxes], allow_unused=True)
        theirs = fixture.grad[f"pred_logits_{which}"]
        assert_close(gradients[0][0], theirs, rtol=0, atol=2e-5 * theirs.abs().max().item())
        assert gradients[1] is None and bool(fixture.grad["pred_boxes_is_none"])
