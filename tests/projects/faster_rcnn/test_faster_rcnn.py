"""What is added to detectron2's R-CNN, under the heads of Faster R-CNN and of TSP-RCNN."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import FPN, build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn
from torch.testing import assert_close

from align_detr.config import add_align_detr_config
from align_detr.errors import ConfigError, DatasetError
from align_detr.projects.faster_rcnn import RCNN, FasterRCNN, Float32ROIPooler
from support.inputs import image_input
from support.tsp_rcnn_tiny import build, refining, tiny, tiny_faster_rcnn

# Differently sized, two alike, wide and tall, none a multiple of what the backbone pads to.
SIZES = [(96, 70), (64, 128), (96, 70), (45, 61)]


def detector(name: str) -> RCNN:
    """Build a detector whose scores differ clearly between anchors and between proposals."""
    model = {"faster": tiny_faster_rcnn, "tsp": lambda: build(tiny()), "refining": lambda: build(refining())}[name]()
    nn.init.normal_(model.proposal_generator.rpn_head.objectness_logits.weight)
    for key, layer in model.roi_heads.named_modules():
        if key.endswith(("cls_score", "classifier.linear")):
            nn.init.normal_(layer.weight)
    return model.eval()


def inputs(*counts: int) -> list[dict]:
    torch.manual_seed(1)
    return [image_input(*size, num_objects=n) for size, n in zip(SIZES, counts, strict=False)]


def same(found: Instances, expected: Instances) -> None:
    assert len(found) == len(expected) > 0
    assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor, atol=1e-3, rtol=0)
    assert_close(found.scores, expected.scores, atol=1e-5, rtol=0)
    assert torch.equal(found.pred_classes, expected.pred_classes)


@pytest.mark.parametrize("name", ["faster", "tsp", "refining"])
def test_batch_does_not_change_detections(name: str) -> None:
    model, images = detector(name), inputs(0, 0, 0, 0)
    with torch.no_grad():
        together = model(images)
        turned = model(images[::-1])[::-1]
        alone = [model([image])[0] for image in images]
        raw = model.inference(images, do_postprocess=False)
    for a, b, c, d, size in zip(together, turned, alone, raw, SIZES, strict=True):
        same(a["instances"], c["instances"])
        same(b["instances"], c["instances"])
        assert isinstance(d, Instances) and d.image_size == size
        same(d, c["instances"])


def test_given_boxes_stay_with_their_images() -> None:
    """With `detected_instances`, detectron2 predicts on known boxes, which box heads return unchanged."""
    model, images = detector("faster"), inputs(0, 0, 0, 0)
    known = [
        Instances(size, pred_boxes=Boxes(torch.full((1, 4), float(i))), pred_classes=torch.tensor([i]))
        for i, size in enumerate(SIZES)
    ]
    with torch.no_grad():
        found = model.inference(images, known, do_postprocess=False)
    assert [x.pred_classes.tolist() for x in found] == [[0], [1], [2], [3]]


@pytest.mark.parametrize("name", ["faster", "tsp"])
def test_a_box_without_width_is_named(name: str) -> None:
    model, batch = detector(name).train(), inputs(2, 1)
    batch[1]["file_name"] = "street.jpg"
    batch[1]["instances"].gt_boxes.tensor[0, 2] = batch[1]["instances"].gt_boxes.tensor[0, 0]
    with EventStorage(), pytest.raises(DatasetError, match=r"street\.jpg has a box without width or height"):
        model(batch)


def test_regions_of_half_precision_maps_are_pooled_where_the_boxes_are() -> None:
    """A ramp over the columns shows where the box is pooled; in bfloat16 it would begin at 804 and end at 820."""
    sizes = dict(output_size=2, scales=[1 / 4], sampling_ratio=0, pooler_type="ROIAlignV2")
    ramp = torch.arange(256.0).expand(1, 1, 8, 256).bfloat16()
    boxes = [Boxes(torch.tensor([[803.0, 4.0, 819.0, 20.0]]))]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = Float32ROIPooler(**sizes)([ramp], boxes)
    # Cells of 8 pixels around 807 and 815, in columns of 4 pixels with the first one's middle at 2.
    assert found.dtype == torch.float32
    assert_close(found[0, 0, 0], torch.tensor([807.0, 815.0]) / 4 - 0.5)
    assert type(tiny_faster_rcnn().roi_heads.box_pooler) is Float32ROIPooler


def test_bfloat16() -> None:
    torch.manual_seed(0)
    model, batch = detector("faster"), inputs(2, 0)
    with torch.autocast("cpu", dtype=torch.bfloat16), EventStorage():
        losses = model.train()(batch)
        sum(losses.values()).backward()
        with torch.no_grad():
            found = model.eval()(batch)
    assert losses.keys() == {"loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc"}
    assert all(torch.isfinite(x) for x in losses.values()) and all(len(x["instances"]) for x in found)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


def yacs(name: str, config: str) -> RCNN:
    cfg = get_cfg()
    add_align_detr_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = name
    cfg.MODEL.ALIGN_DETR.CONFIG = config
    cfg.MODEL.ALIGN_DETR.OVERRIDES = ["model.roi_heads.num_classes=5"]
    return build_model(cfg)


def test_an_override_among_the_two_yacs_keys() -> None:
    model = yacs("FasterRCNN", "FasterRCNN/faster_rcnn_digits")
    assert type(model) is FasterRCNN and model.num_classes == 5
    assert isinstance(model.backbone, FPN) and model.roi_heads.box_predictor.cls_score.out_features == 6
    with pytest.raises(ConfigError, match="describes a FasterRCNN"):
        yacs("TSPRCNN", "FasterRCNN/faster_rcnn_digits")
    tsp = yacs("TSPRCNN", "TSP/tsp_rcnn_coco_mini")
    assert tsp.num_classes == 5 and tsp.roi_heads.stages[0].boxes.mlp.layers[-1].out_features == 4 * 5
