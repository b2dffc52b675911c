"""Where the boxes of a small SMCA start."""

import torch
from detectron2.config import instantiate
from torch.testing import assert_close

from align_detr.projects.smca import SMCADETR
from support.shrink import small_model
from support.subject import randomise


def tiny() -> SMCADETR:
    """Build a detector of 6 queries with random weights."""
    torch.manual_seed(0)
    detector = instantiate(small_model("SMCA/smca_r50_50ep.py", num_queries=6))
    randomise(detector)  # else all heads are alike and boxes are their centres
    return detector.eval()


def test_boxes_of_every_layer_start_at_the_centre_and_train_it() -> None:
    detector = tiny()
    memory = detector.encoder(detector.extract_features([torch.randn(3, 64, 64)]))
    queries = detector.queries(memory)
    _, references = detector.decoder.decode(queries, memory, detector.head)
    placed = detector.decoder.layers[0].place_norm(detector.queries.position.weight)
    centre = detector.decoder.centre(placed).sigmoid()[None]
    assert len(references) == 2
    for layer, reference in enumerate(references):
        assert_close(reference, centre)
        boxes = detector.decoder(queries, memory, detector.head)["main"].boxes[layer]
        (gradient,) = torch.autograd.grad(boxes[..., :2].sum(), detector.decoder.centre.layers[-1].bias)
        assert (gradient > 1e-3).all()  # the sum of the derivatives of sigmoids
