"""The graph of an exported file, before it is exported: it finds what the detector finds, padding included."""

from functools import cache
from typing import Any

import pytest
import torch
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn
from torch.testing import assert_close
from torchvision.models.swin_transformer import PatchMerging, ShiftedWindowAttention

from align_detr.errors import ConfigError
from align_detr.export.module import ExportedDetector, detection_copy
from align_detr.export.windows import PlainPatchMerging, PlainWindowAttention, use_plain_windows
from align_detr.modeling.batching import features_of_padded_batch, pad_and_stack
from align_detr.modeling.meta_arch import DETR
from align_detr.projects.tsp import TSPFCOS, TSPRCNN
from align_detr.structures import MAIN
from support.graphs import GRAPHS, one_per_graph
from support.subject import subject

PADDED = (80, 100)
SIZES = [(80, 100), (61, 100), (33, 47)]


@cache
def noise() -> list[Tensor]:
    """Images of SIZES."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(256, (3, *size), dtype=torch.uint8, generator=generator) for size in SIZES]


def found_eagerly(model: Any, images: list[Tensor]) -> list[Instances]:
    """Detections of images that are padded to PADDED, by the path of training: numbers for sizes, no tensors."""
    normalised = [(image - model.pixel_mean) / model.pixel_std for image in images]
    blank = normalised[0].new_zeros(3, *PADDED)
    features, padded = features_of_padded_batch(model.backbone, [*normalised, blank])
    features = {name: x[:-1] for name, x in features.items()}
    sizes = [(x.shape[-2], x.shape[-1]) for x in images]
    if isinstance(model, TSPRCNN):
        batch = ImageList(pad_and_stack(normalised, padded), sizes)
        proposals, _ = model.proposal_generator(batch, features)
        found, _ = model.roi_heads(batch, features, proposals)
    elif isinstance(model, TSPFCOS):
        points = model.points(features, sizes, padded)
        found = model.postprocess(model.predict(points, model.selection(points)))
    else:
        found = model.postprocess(model.predict(model.encoder(model.neck(features, sizes, padded)))[MAIN], sizes)
    for x in found:
        x.pred_boxes.clip(x.image_size)
    return found


def assert_alike(found: tuple[Tensor, Tensor, Tensor], expected: list[Instances]) -> None:
    """The same scores in order; each detection has one of its class with its score and its sides."""
    for boxes, scores, labels, other in zip(*found, expected, strict=True):
        best = other[other.scores.argsort(descending=True, stable=True)]
        count = len(best)
        assert (boxes[count:] == 0).all() and (scores[count:] == 0).all()  # places without a detection
        assert_close(scores[:count], best.scores, atol=5e-5, rtol=0)
        alike = labels[:count, None] == best.pred_classes
        alike &= (scores[:count, None] - best.scores).abs() < 5e-5
        alike &= (boxes[:count, None] - best.pred_boxes.tensor).abs().amax(-1) < 0.01
        assert alike.any(0).all() and alike.any(1).all()


def test_every_graph_is_in_the_list() -> None:
    assert one_per_graph() == GRAPHS


@pytest.mark.parametrize("name", GRAPHS)
@torch.no_grad()
def test_the_graph_finds_what_the_detector_finds(name: str) -> None:
    """In a batch of padded images; a detector that cannot be exported says so in one sentence."""
    model: nn.Module = subject(name).model.eval()
    try:
        module = ExportedDetector(detection_copy(model)).eval()
    except ConfigError as error:
        assert str(error).startswith(f"{type(model).__name__} cannot be exported")
        assert not isinstance(model, DETR) or type(model).predict is not DETR.predict
        return
    images = pad_and_stack(noise(), PADDED)
    assert_alike(module(images, torch.tensor(SIZES)), found_eagerly(model, noise()))


@pytest.mark.parametrize("size", [(14, 21), (7, 21), (14, 5), (6, 7)])
@torch.no_grad()
def test_windows_are_torchvisions(size: tuple[int, int]) -> None:
    """Shifted along no side, one or both, and padded."""
    attention = ShiftedWindowAttention(dim=8, window_size=[7, 7], shift_size=[3, 3], num_heads=2)
    nn.init.normal_(attention.relative_position_bias_table)
    x = torch.randn(2, *size, 8)
    expected = attention(x)
    use_plain_windows(nn.Sequential(attention))
    assert isinstance(attention, PlainWindowAttention)
    assert_close(attention(x), expected)
    merging = PatchMerging(dim=8)
    expected = merging(x)
    use_plain_windows(nn.Sequential(merging))
    assert isinstance(merging, PlainPatchMerging)
    assert_close(merging(x), expected)


@torch.no_grad()
def test_what_lies_in_the_padding_does_not_matter() -> None:
    model = subject("dino/dino_r50_4scale_12ep.py").model.eval()
    module = ExportedDetector(detection_copy(model)).eval()
    images = pad_and_stack(noise(), PADDED)
    dirty = images.clone()
    dirty[2, :, SIZES[2][0] :] = 200
    dirty[2, :, :, SIZES[2][1] :] = 200
    clean, other = (module(x, torch.tensor(SIZES)) for x in (images, dirty))
    assert all(torch.equal(a, b) for a, b in zip(clean, other, strict=True))


@torch.no_grad()
def test_forms_of_the_input() -> None:
    """RGB pixels for a model of BGR images, and normalised images in the model's order."""
    model = subject("detr/detr_r50_500ep.py").model.eval()
    copied = detection_copy(model)
    image = noise()[0][None]
    sizes = torch.tensor([PADDED])
    expected = ExportedDetector(copied).eval()(image.flip(1), sizes)
    flipped = ExportedDetector(copied, flip=True).eval()(image, sizes)
    normalised = ExportedDetector(copied, normalised=True).eval()(model.normalize(image[0].flip(0))[None], sizes)
    for found in (flipped, normalised):
        assert_close(found[0], expected[0], atol=1e-3, rtol=0)
        assert_close(found[1], expected[1])


def test_the_detector_stays_as_it_is() -> None:
    model = subject("dino/dino_r50_4scale_12ep.py").model
    before = {key: value.clone() for key, value in model.state_dict().items()}
    kinds = [type(x) for x in model.modules()]
    detection_copy(model)
    assert [type(x) for x in model.modules()] == kinds
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
