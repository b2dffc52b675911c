"""The parts of the encoder and the proposals of deformable detectors against the reference numbers."""

import torch
from torch import Tensor
from torch.testing import assert_close

from align_detr.layers.boxes import inverse_sigmoid
from align_detr.layers.positional import encode_coordinates
from align_detr.modeling.deformable import in_each_level, token_centres
from align_detr.modeling.neck import padding_mask, valid_size
from align_detr.modeling.proposals import ObjectProposals, count_allowed, token_anchors
from align_detr.structures import Memory
from support.golden import Fixture, fixtures


def memory_of(fixture: Fixture) -> Memory:
    shapes = [tuple(shape) for shape in fixture.input["spatial_shapes"].tolist()]
    sizes, padded = fixture.meta["image_sizes"], fixture.meta["padded_size"]
    valid = [[valid_size(size, padded, shape) for size in sizes] for shape in shapes]
    masks = [padding_mask(v, shape, torch.device("cpu")) for v, shape in zip(valid, shapes, strict=True)]
    for level, mask in enumerate(masks):
        assert torch.equal(mask, fixture.input[f"mask_lvl{level}"])
    tokens = fixture.input["memory"]
    padding = torch.cat([m.flatten(1) for m in masks], dim=1)
    return Memory(tokens, torch.zeros_like(tokens), padding=padding, shapes=shapes, valid_sizes=valid)


@fixtures("encoder_proposals*")
def test_references_of_the_encoder(fixture: Fixture) -> None:
    memory = memory_of(fixture)
    assert_close(memory.valid_ratios, fixture.output["valid_ratios"], atol=1e-5, rtol=0)
    reference = in_each_level(token_centres(memory), memory)
    assert_close(reference, fixture.output["reference_points"], atol=1e-5, rtol=0)


@fixtures("encoder_proposals*")
def test_anchors_and_tokens_of_proposals(fixture: Fixture) -> None:
    memory, weights = memory_of(fixture), fixture.weights
    proposals = ObjectProposals(num_queries=3, num_classes=2, embed_dim=memory.tokens.shape[-1])
    state = {
        key.replace("enc_output_norm", "norm").replace("enc_output", "projection"): value
        for key, value in weights.items()
    }
    missing, unexpected = proposals.load_state_dict(state, strict=False)
    assert not unexpected and all("embed" in key for key in missing)
    anchors, allowed = proposals.anchors(memory)
    tokens = proposals.encode(memory.tokens, allowed)
    expected = fixture.output["output_proposals"]
    assert torch.equal(allowed, expected.isfinite().all(-1)) and not allowed.all()
    assert torch.equal(anchors.isinf(), expected.isinf())
    assert_close(anchors[allowed], expected[allowed], atol=1e-5, rtol=0)
    assert_close(tokens, fixture.output["output_memory"], atol=1e-5, rtol=0)
    assert count_allowed(memory) == token_anchors(memory)[1].sum(1).tolist()


@fixtures("proposal_pos_embed*")
def test_encoded_proposals(fixture: Fixture) -> None:
    boxes = fixture.input["proposals"].sigmoid()
    for name, expected in fixture.output.items():
        assert_close(encode_coordinates(boxes, int(name.removeprefix("feats"))), expected, atol=1e-5, rtol=0)


def reordered(position: Tensor, name: str) -> Tensor:
    """Return those of x, y, w, h that a recorded encoding has, in its order."""
    order = [0, 1, 2, 3] if "noexchange" in name else [1, 0, 2, 3]
    return position[..., order[:2] if "2d" in name else order]


@fixtures("sine_embed_for_position*")
def test_encoded_coordinates(fixture: Fixture) -> None:
    assert len(fixture.output) >= 6
    for name, expected in fixture.output.items():
        coordinates = reordered(fixture.input["pos"], name)
        features, temperature = expected.shape[-1] // coordinates.shape[-1], 20 if "temp20" in name else 10000
        ours = encode_coordinates(coordinates, features, temperature)
        assert_close(ours, expected, atol=1e-5, rtol=0)


@fixtures("inverse_sigmoid*")
def test_inverse_sigmoid(fixture: Fixture) -> None:
    for name, expected in fixture.output.items():
        x = fixture.input["x"].clone().requires_grad_()
        y = inverse_sigmoid(x, eps=float(name.removeprefix("eps")))
        assert_close(y, expected, atol=1e-5, rtol=0)
        (grad,) = torch.autograd.grad(y.sum(), x)
        assert_close(grad, fixture.grad[name], rtol=1e-5, atol=1e-5)
