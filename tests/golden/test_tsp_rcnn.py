"""TSP-RCNN against the reference code: proposal head, sampling, box stages, a training step with all its gradients."""

import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import ImageList, Instances
from torch import Tensor

from align_detr import model_zoo
from align_detr.projects.tsp.checkpoint import convert_official_tsp_rcnn
from align_detr.projects.tsp.rcnn.rois import RoIs
from align_detr.projects.tsp.rcnn.rpn import TowerRPNHead
from align_detr.projects.tsp.rcnn.sampling import ProposalSampler
from support.golden import Fixture, fixtures
from support.tsp_rcnn import PYRAMID, build_heads, close, objects, proposals, sampled

IMAGE_LIST = ImageList(torch.zeros(0), [])  # the heads read features and proposals alone


def detections_agree(found: list[Instances], fixture: Fixture) -> None:
    """Compare scores, and find each recorded detection among those of nearly the same score."""
    for i, x in enumerate(found):
        scores, boxes, classes = (fixture.output[f"det_{key}_{i}"] for key in ("scores", "boxes", "classes"))
        close(x.scores, scores)
        assert len(x) == len(scores)
        tolerance = 1e-5 * boxes.abs().max()
        same = (x.pred_boxes.tensor[:, None] - boxes).abs().amax(-1) <= tolerance
        same &= (x.pred_classes[:, None] == classes) & ((x.scores[:, None] - scores).abs() <= 1e-5)
        assert same.any(0).all() and same.any(1).all()


@fixtures("tsp/rpn_head*")
def test_rpn_head(fixture: Fixture) -> None:
    names = list(fixture.input)
    head = TowerRPNHead(
        in_channels=fixture.meta["config"]["channels"],
        num_anchors=fixture.output[f"objectness_{names[0]}"].shape[1],
        num_levels=len(names),
        norm="BN",
    )
    state = convert_official_tsp_rcnn(fixture.weights)
    head.load_state_dict({k.removeprefix("proposal_generator.rpn_head."): v for k, v in state.items()}, strict=True)
    maps = [fixture.input[name] for name in names]
    objectness, deltas = head.eval()(maps)
    node = model_zoo.get_config("TSP/tsp_rcnn_r50_36ep").model.proposal_generator.anchor_generator
    anchors = DefaultAnchorGenerator(**{k: v for k, v in node.items() if k != "_target_"})(maps)
    for i, name in enumerate(names):
        close(objectness[i], fixture.output[f"objectness_{name}"])
        close(deltas[i], fixture.output[f"deltas_{name}"])
        close(anchors[i].tensor, fixture.output[f"anchors_{name}"])


class RecordedSampler(ProposalSampler):
    """A sampler that returns the recorded draws, image after image."""

    def __init__(self, fixture: Fixture, **options: float) -> None:
        super().__init__(**options)
        self.given, self.image, self.noise = fixture.input, 0, {}

    def draw_noise(self, objects: Tensor) -> Tensor:
        return self.given[f"draw_gt_noise_{self.image}"]

    def draw_order(self, foreground: Tensor, background: Tensor) -> Tensor:
        order = self.given[f"draw_order_before_drop_{self.image}"]
        drawn = super().draw_order(foreground, background)
        assert len(drawn) == len(order) and len(set(drawn.tolist())) == len(drawn)
        split = int(torch.isin(order, foreground).sum())
        assert torch.isin(drawn[:split], foreground).all() and torch.isin(drawn[split:], background).all()
        return order

    def draw_kept(self, count: int, device: torch.device) -> Tensor:
        kept = self.given[f"draw_kept_positions_{self.image}"]
        assert self.num_kept(count, float(self.given["draw_uniform"][self.image])) == len(kept)
        self.image += 1
        return kept


@fixtures("tsp/rcnn_sampling*")
def test_sampling(fixture: Fixture) -> None:
    options = fixture.meta["official_options"]
    budget = (
        fixture.meta["config"]
        .get("opts", {})
        .get("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", options["BATCH_SIZE_PER_IMAGE"])
    )
    sampler = RecordedSampler(
        fixture,
        batch_size_per_image=budget,
        positive_fraction=options["POSITIVE_FRACTION"],
        iou_threshold=options["IOU_THRESHOLDS"][0],
        keep_range=[options[f"RANDOM_PROPOSAL_DROP_{end}_BOUND"] for end in ("LOWER", "UPPER")],
    )
    truth, classes = objects(fixture), fixture.meta["config"]["num_classes"]
    found = sampler(proposals(fixture), truth)
    for i, x in enumerate(found):
        close(x.proposal_boxes.tensor, fixture.output[f"boxes_{i}"])
        foreground = x.gt_idxs >= 0
        expected = fixture.output[f"gt_classes_{i}"]
        assert torch.equal(foreground, expected < classes)
        assert torch.equal(x.gt_idxs[foreground], fixture.output[f"gt_idxs_{i}"][foreground])
        assert torch.equal(truth[i].gt_classes[x.gt_idxs[foreground]], expected[foreground])


@fixtures("tsp/rcnn_roi_heads_eval*")
def test_evaluation(fixture: Fixture) -> None:
    heads = build_heads(fixture).eval()
    rois, expected = RoIs.from_instances(proposals(fixture)), fixture.output
    features = {name: fixture.input[name] for name in PYRAMID}
    with torch.no_grad():
        pooled = heads.pool(features, rois)
        memory = heads.stages[0].transformer.tokens(pooled, rois)
        outputs = heads.stages[0](pooled, rois)
        found, losses = heads(IMAGE_LIST, features, proposals(fixture))
    assert losses == {}
    assert torch.equal(memory.padding, expected["padding_mask"])
    valid = ~memory.padding
    close(pooled, expected["pooled"][valid])
    close(memory.tokens[valid], expected["encoder_input"][valid])
    close(memory.position[valid], expected["encoder_pos"][valid])
    close(outputs.hidden[valid], expected["encoder_output"])
    close(outputs.logits[valid], expected["cls_logits"])
    close(outputs.deltas[valid].flatten(1), expected["deltas"])
    close(outputs.boxes(rois)[valid].flatten(1), expected["pred_boxes"])
    close(heads.stages[0].classifier.probabilities(outputs.logits)[valid], expected["probs"])
    detections_agree(found, fixture)


@fixtures("tsp/rcnn_cascade_eval*")
def test_iterative_refinement(fixture: Fixture) -> None:
    heads = build_heads(fixture).eval()
    features = {name: fixture.input[name] for name in PYRAMID}
    rois, outputs = RoIs.from_instances(proposals(fixture)), None
    with torch.no_grad():
        for k, stage in enumerate(heads.stages):
            rois = rois if outputs is None else rois.refined(outputs.boxes(rois)[:, :, 0])
            outputs = stage(heads.pool(features, rois), rois, outputs)
            expected = {key: fixture.output[f"stage{k}/{key}"] for key in ("proposals", "encoder_output")}
            close(rois.boxes[rois.valid], expected["proposals"])
            close(outputs.hidden[rois.valid], expected["encoder_output"])
            close(outputs.logits[rois.valid], fixture.output[f"stage{k}/cls_logits"])
            close(outputs.deltas[rois.valid][:, 0], fixture.output[f"stage{k}/deltas"])
            close(outputs.boxes(rois)[rois.valid][:, 0], fixture.output[f"stage{k}/pred_boxes"])
        found, _ = heads(IMAGE_LIST, features, proposals(fixture))
    detections_agree(found, fixture)


@fixtures("tsp/rcnn_train_step*")
def test_train_step(fixture: Fixture) -> None:
    heads = build_heads(fixture).train()
    rois, targets = sampled(fixture)
    features = {name: fixture.input[name].clone().requires_grad_() for name in PYRAMID}
    losses = heads.losses(features, rois, targets)
    close(losses["loss_obj"].detach(), fixture.loss["loss_obj"])
    close((losses["loss_box_l1"] + losses["loss_box_giou"]).detach(), fixture.loss["loss_box_reg"])
    sum(losses.values()).backward()
    maps = {key.removeprefix("input_"): g for key, g in fixture.grad.items() if key.startswith("input_")}
    for name, expected in maps.items():
        close(features[name].grad, expected)
    expected = convert_official_tsp_rcnn({k: g for k, g in fixture.grad.items() if not k.startswith("input_")})
    ours = {f"roi_heads.{name}": p.grad for name, p in heads.named_parameters()}
    assert ours.keys() == expected.keys()
    for name, gradient in ours.items():
        close(gradient, expected[name])
