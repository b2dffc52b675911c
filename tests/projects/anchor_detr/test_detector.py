"""What a small Anchor-DETR does with its points, patterns and padding."""

import torch
from detectron2.config import instantiate

from align_detr.projects.anchor_detr import AnchorDETR
from align_detr.structures import Predictions
from support.inputs import image_input
from support.shrink import small_model
from support.subject import randomise


def tiny(*, norm_padding: bool = False) -> AnchorDETR:
    """Build a detector of 5 points with 2 patterns and random weights."""
    torch.manual_seed(0)
    model = small_model("AnchorDETR/anchor_detr_r50_50ep.py", num_queries=5, num_patterns=2, num_groups=8)
    model.neck.norm_padding = norm_padding
    detector = instantiate(model)
    randomise(detector)
    return detector


@torch.no_grad()
def predict(detector: AnchorDETR, batch: list[dict]) -> Predictions:
    images = [detector.normalize(x["image"]) for x in batch]
    return detector.predict(detector.encoder(detector.extract_features(images)))["main"]


def test_norm_over_padding_is_the_ports_way() -> None:
    batch = [image_input(96, 160, 0), image_input(64, 64, 0)]
    for norm_padding in (False, True):
        detector = tiny(norm_padding=norm_padding).eval()
        difference = (predict(detector, batch).logits[:, 1] - predict(detector, batch[1:]).logits[:, 0]).abs().max()
        assert (difference > 1e-3) == norm_padding


def test_every_point_has_every_pattern() -> None:
    detector = tiny().eval()
    images = [detector.normalize(image_input(64, 64, 0)["image"])] * 2
    (part,) = detector.queries(detector.extract_features(images))
    assert part.content.shape == (2, 10, 32) and part.position.shape == (2, 10, 96)
    for pattern in range(2):
        for point in range(5):  # all points of the first pattern first
            query = 5 * pattern + point
            assert torch.equal(part.content[1, query], detector.queries.pattern.weight[pattern])
            assert torch.equal(part.reference[1, query], detector.queries.point.weight[point])
    assert torch.equal(part.position[0, :5], part.position[1, 5:])


def test_points_outside_of_the_image_stay_finite() -> None:
    detector = tiny().train()
    with torch.no_grad():
        detector.queries.point.weight[:3] = torch.tensor([[-0.5, 1.5], [0.0, 1.0], [7.0, -7.0]])
    losses = detector([image_input(64, 64, 2)])
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in detector.parameters() if p.requires_grad)
