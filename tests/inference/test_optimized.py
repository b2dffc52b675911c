"""A detector that is optimized for inference finds what the detector finds."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import instantiate
from detectron2.layers import Conv2d
from torch import Tensor, nn
from torch.testing import assert_close

from align_detr import ConfigError, optimize_for_inference
from align_detr.inference.optimized.folding import fold_norms
from align_detr.inference.optimized.fused import FusedConv2d, FusedLinear, Kernels, has_bfloat16
from align_detr.inference.optimized.layout import KEPT_SHAPES, KeptNeck
from align_detr.inference.optimized.optimize import OptimizedDetector
from align_detr.inference.optimized.parts import TOKENS_AT_ONCE, FusedFeedForward, LastLayerDecoder
from align_detr.inference.optimized.resnet import FusedResNet
from align_detr.layers.attention import FeedForward
from align_detr.modeling.backbone import EfficientNetLite, MobileNetV2, build_resnet, build_small_resnet
from align_detr.structures import MAIN, Predictions
from support.shrink import small_model
from support.subject import randomise

CONFIGS = [
    "detr/detr_r50_500ep.py",
    "conditional_detr/conditional_detr_r50_50ep.py",
    "dab_detr/dab_detr_r50_50ep.py",
    "deformable_detr/deformable_detr_r50_two_stage_50ep.py",
    "dino/dino_r50_4scale_12ep.py",
    "ablations/dino_r50_iou_branch_fused_12ep.py",
    "AnchorDETR/anchor_detr_r50_50ep.py",
    "SMCA/smca_r50_50ep.py",
    "DETRSegmentation/detr_r50_panoptic_25ep.py",
]
SIZES = [(64, 96), (96, 64), (80, 112)]


def build(name: str) -> nn.Module:
    """Return a small detector of a config's parts, with random weights and norms that do something."""
    torch.manual_seed(0)
    model = instantiate(small_model(name)).eval()
    randomise(model)
    for module in model.modules():
        if hasattr(module, "running_var"):
            module.running_var.uniform_(0.5, 2.0)
            module.running_mean.normal_(std=0.1)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(std=0.1)
    return model


def noise(*sizes: tuple[int, int]) -> list[dict[str, Tensor]]:
    """Return noise images, the same ones in every call."""
    torch.manual_seed(1)
    return [{"image": torch.randint(256, (3, *size), dtype=torch.uint8)} for size in sizes]


def predicted(model: nn.Module, batch: list[dict[str, Tensor]]) -> Predictions:
    """Return the last layer's predictions of a batch, before detections are picked."""
    with torch.inference_mode():
        images = [model.normalize(x["image"]) for x in batch]
        return model.predict(model.encoder(model.extract_features(images)))[MAIN]


@pytest.mark.parametrize("name", CONFIGS)
def test_predictions_are_the_same(name: str) -> None:
    """Probabilities and normalised boxes, in a padded batch, in one of kept sizes, and alone; and the scores found."""
    model = build(name)
    optimized = optimize_for_inference(model)
    for batch in (noise(*SIZES), noise(*SIZES), noise(SIZES[1])):
        expected, found = predicted(model, batch), predicted(optimized.model, batch)
        for a, b in (
            (found.logits[-1].sigmoid(), expected.logits[-1].sigmoid()),
            (found.boxes[-1], expected.boxes[-1]),
        ):
            assert_close(a, b, atol=1e-4, rtol=0)
    with torch.no_grad():
        for a, b in zip(optimized(batch), model(batch), strict=True):
            assert_close(a["instances"].scores, b["instances"].scores, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["FasterRCNN/faster_rcnn_r50_fpn_36ep.py", "TSP/tsp_fcos_r50_36ep.py"])
def test_other_detectors_find_the_same(name: str) -> None:
    model = build(name)
    (found,), (expected,) = optimize_for_inference(model)(noise(SIZES[0])), model(noise(SIZES[0]))
    assert_close(found["instances"].scores, expected["instances"].scores, atol=1e-4, rtol=0)


@pytest.mark.parametrize("backbone", [EfficientNetLite, MobileNetV2, build_small_resnet])
def test_norms_of_every_backbone_are_folded(backbone: type) -> None:
    model = build("detr/detr_r50_500ep.py")
    model.backbone = backbone().eval()
    image = torch.randn(1, 3, 65, 97)
    optimized = optimize_for_inference(model).model
    with torch.inference_mode():
        assert_close(optimized.backbone(image)["res5"], model.backbone(image)["res5"], atol=1e-4, rtol=1e-4)
    assert not [x for x in optimized.backbone.modules() if hasattr(x, "running_mean")]


@pytest.mark.parametrize(("depth", "dilation"), [(18, 1), (50, 2)])
def test_the_resnet_of_the_recipes_is_fused(depth: int, dilation: int) -> None:
    """The ResNet that configs build is a class of the library's, with convolutions of its own."""
    torch.manual_seed(0)
    model = build("detr/detr_r50_500ep.py")
    model.backbone = build_resnet(depth=depth, out_features=["stem", "res2", "res5"], res5_dilation=dilation).eval()
    image = torch.randn(2, 3, 65, 97)
    with torch.inference_mode():
        expected = model.backbone(image)
        fused = optimize_for_inference(model).model.backbone
        assert isinstance(fused, FusedResNet)
        for name, found in fused(image).items():
            assert_close(found, expected[name], atol=1e-3 * float(expected[name].abs().max()), rtol=0)


def test_heads_of_the_last_layer_alone() -> None:
    optimized = optimize_for_inference(build("dino/dino_r50_4scale_12ep.py"))
    assert isinstance(optimized.model.decoder, LastLayerDecoder)


def test_a_norm_behind_an_activation_is_not_folded() -> None:
    """detectron2's convolution may hold a ReLU, behind which a norm is another function."""
    sequence = nn.Sequential(Conv2d(3, 4, 1, activation=F.relu), nn.BatchNorm2d(4)).eval()
    sequence[1].running_mean.fill_(0.5)
    x = torch.randn(1, 3, 5, 5)
    expected = sequence(x)
    fold_norms(sequence)
    assert_close(sequence(x), expected)


class Activated(nn.BatchNorm2d):
    """A norm with an activation, as timm has."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


class Standardised(nn.Conv2d):
    """A convolution that changes its weight before it uses it."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, F.normalize(self.weight, dim=1), self.bias)


@pytest.mark.parametrize("kinds", [(nn.Conv2d, Activated), (Standardised, nn.BatchNorm2d)], ids=["norm", "convolution"])
def test_subclasses_that_do_more_are_not_folded(kinds: tuple[type[nn.Module], type[nn.Module]]) -> None:
    torch.manual_seed(0)
    sequence = nn.Sequential(kinds[0](3, 4, 1), kinds[1](4)).eval()
    sequence[1].running_mean.fill_(0.5), sequence[1].running_var.fill_(4.0)
    x = torch.randn(1, 3, 5, 5)
    expected = sequence(x)
    fold_norms(sequence)
    assert_close(sequence(x), expected)


def test_routes_of_training_are_left_out() -> None:
    """The copy is that of the plain detector: heads of the last layer alone, and no weight of a route."""
    model = build("mr_detr/mr_dino_r50_4scale_12ep.py")
    optimized = optimize_for_inference(model)
    assert isinstance(optimized.model.decoder, LastLayerDecoder)
    assert any(".routes." in name for name, _ in model.named_modules())
    assert not any(".routes." in name for name, _ in optimized.named_modules())
    found, expected = predicted(optimized.model, noise(SIZES[0])), predicted(model, noise(SIZES[0]))
    assert_close(found.boxes[-1], expected.boxes[-1], atol=1e-4, rtol=0)


def test_masks_and_segments_are_the_same_and_may_be_changed() -> None:
    model = build("DETRSegmentation/detr_r50_panoptic_25ep.py")
    (found,), (expected,) = optimize_for_inference(model)(noise(SIZES[0])), model(noise(SIZES[0]))
    assert found.keys() == expected.keys() and "panoptic_seg" in found
    for mine, other in (
        (found["instances"].pred_masks, expected["instances"].pred_masks),
        (found["panoptic_seg"][0], expected["panoptic_seg"][0]),
    ):
        assert (mine == other).float().mean() > 0.99  # rounding decides at edges
    found["panoptic_seg"][0].add_(1)  # refused for tensors of inference mode


def test_the_original_stays_as_it_is() -> None:
    model = build("dino/dino_r50_4scale_12ep.py")
    before = copy.deepcopy(model.state_dict())
    optimize_for_inference(model)(noise(SIZES[0]))
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def test_outputs_of_a_stage_are_not_overwritten_by_the_next() -> None:
    """A block without shortcut convolution adds to its own input, which may be an output of the backbone."""
    resnet = build_small_resnet(out_features=["stem", "res2", "res3", "res5"], norm="FrozenBN").eval()
    image = torch.randn(2, 3, 64, 64)
    folded = copy.deepcopy(resnet)
    fold_norms(folded)
    fused = FusedResNet(folded, Kernels(torch.device("cpu"), torch.float32))
    with torch.inference_mode():
        for name, expected in resnet(image).items():
            assert_close(fused(image)[name], expected, atol=1e-5, rtol=1e-5)


def test_kernels_without_onednn_compute_the_same() -> None:
    conv, linear = nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.Linear(8, 4)
    kernels = Kernels(torch.device("cpu"), torch.float32)
    x, residual = torch.randn(2, 8, 9, 7), torch.randn(2, 8, 5, 4)
    with torch.inference_mode():
        for plain, fast, at in (
            (FusedConv2d(conv, relu=True), kernels.convolution(conv, relu=True), x),
            (FusedLinear(linear, relu=True), kernels.linear(linear, relu=True), torch.randn(5, 8)),
        ):
            assert_close(plain(at), fast(at))
        assert_close(FusedConv2d(conv).add_relu(x, residual.clone()), kernels.convolution(conv).add_relu(x, residual))


@pytest.mark.parametrize(("capability", "packed"), [("AVX512", True), ("AVX2", False), ("DEFAULT", False)])
def test_convolutions_are_packed_with_avx512_alone(
    capability: str, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it a layout for one size makes others up to ten times as slow."""
    conv, x = nn.Conv2d(8, 8, 3, padding=1), torch.randn(2, 8, 5, 4)
    kernels = Kernels(torch.device("cpu"), torch.float32)
    if not kernels.packed:
        pytest.skip("this PyTorch lacks oneDNN")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    fused = kernels.convolution(conv)
    assert fused.weight.is_mkldnn == packed
    with torch.inference_mode():
        for each in (fused, copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))):
            assert each.weight.is_mkldnn == packed
            assert_close(each(x), conv(x))


def test_tokens_are_transformed_in_parts() -> None:
    block = FeedForward(embed_dim=4, ffn_dim=8, dropout=0.0)
    x = torch.randn(2, TOKENS_AT_ONCE, 4)
    with torch.inference_mode():
        assert_close(FusedFeedForward(block, Kernels(torch.device("cpu"), torch.float32))(x), block(x))


def test_sizes_are_kept_up_to_a_bound() -> None:
    optimized = optimize_for_inference(build("detr/detr_r50_500ep.py"))
    neck = optimized.model.neck
    assert isinstance(neck, KeptNeck)
    for side in range(33, 33 + 32 * (KEPT_SHAPES + 3), 32):
        optimized(noise((side, 40)))
    assert len(neck.kept) == KEPT_SHAPES


@pytest.mark.parametrize("name", ["detr/detr_r50_500ep.py", "dino/dino_r50_4scale_12ep.py"])
def test_copies_and_pickles_find_the_same(name: str) -> None:
    optimized = optimize_for_inference(build(name))
    (expected,) = optimized(noise(SIZES[0]))  # what is kept of this size is not in the copies
    for other in (copy.deepcopy(optimized), pickle.loads(pickle.dumps(optimized))):
        (found,) = other(noise(SIZES[0]))
        assert torch.equal(found["instances"].scores, expected["instances"].scores)


def test_detections_can_be_changed_in_place() -> None:
    (found,) = optimize_for_inference(build("detr/detr_r50_500ep.py"))(noise(SIZES[0]))
    found["instances"].pred_boxes.scale(2.0, 2.0)
    assert not found["instances"].scores.is_inference()


@pytest.mark.skipif(not has_bfloat16(torch.device("cpu")), reason="this processor has no bfloat16 instructions")
def test_bfloat16_finds_nearly_the_same() -> None:
    model = build("dino/dino_r50_4scale_12ep.py")
    (found,), (expected,) = optimize_for_inference(model, precision="bfloat16")(noise(SIZES[0])), model(noise(SIZES[0]))
    assert found["instances"].scores.dtype == torch.float32
    assert_close(found["instances"].scores[:3], expected["instances"].scores[:3], atol=0.05, rtol=0)


def test_what_cannot_be_optimized_is_refused() -> None:
    with pytest.raises(ConfigError, match="A Linear has no backbone"):
        optimize_for_inference(nn.Linear(2, 2))
    model = build("detr/detr_r50_500ep.py")
    with pytest.raises(ConfigError, match="precision is 'int8'"):
        optimize_for_inference(model, precision="int8")
    with pytest.raises(ConfigError, match="float32 is optimized"):
        optimize_for_inference(copy.deepcopy(model).bfloat16())
    optimized = optimize_for_inference(model)
    assert isinstance(optimized, OptimizedDetector) and not optimized.eval().training
    with pytest.raises(ConfigError, match="cannot be trained"):
        optimized.train()
    for move in (optimized.double, optimized.half, lambda: optimized.to("meta")):
        with pytest.raises(ConfigError, match="cannot become torch.*move the original"):
            move()
    with pytest.raises(ConfigError, match="takes no weights: load them into the original"):
        optimized.load_state_dict(model.state_dict(), strict=False)
    assert optimized.to("cpu") is optimized and len(optimized(noise(SIZES[0]))) == 1
