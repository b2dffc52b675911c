"""Swin, ConvNeXt, timm's models and the simple pyramid: against timm with the same weights, for odd sizes, by name."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from detectron2.modeling import Backbone
from huggingface_hub.utils import LocalEntryNotFoundError
from timm.models import convnext as timm_convnext
from timm.models import swin_transformer as timm_swin
from torch import Tensor, nn
from torch.testing import assert_close

from align_detr.checkpoint.contents import Weights
from align_detr.checkpoint.conversion import convert
from align_detr.checkpoint.dino import dino_config
from align_detr.checkpoint.loading import load_weights
from align_detr.errors import ConfigError, EnvironmentProblem
from align_detr.modeling import ConvNeXt, SimplePyramid, SwinTransformer, TimmBackbone, pixel_statistics

ALL = ["res2", "res3", "res4", "res5"]
Shapes = dict[str, tuple[int, ...]]
SMALL_SWIN = dict(embed_dim=8, depths=[1, 2, 1, 1], num_heads=[1, 2, 2, 2], window_size=2)
SMALL_CONVNEXT = dict(depths=[1, 2, 1, 1], channels=[8, 12, 16, 24])
SMALL_VIT = dict(embed_dim=16, depth=2, num_heads=2)
SMALL_VITDET = dict(**SMALL_VIT, img_size=224, window_size=3, global_attn_indexes=[1])


def pair(name: str, outputs: int, inputs: int, *kernel: int) -> Shapes:
    """Return the shapes of a linear layer or convolution."""
    return {f"{name}.weight": (outputs, inputs, *kernel), f"{name}.bias": (outputs,)}


def norm(name: str, channels: int) -> Shapes:
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def official_swin(embed_dim: int, depths: list[int], num_heads: list[int], window_size: int) -> Shapes:
    """Return names and shapes in the authors' files of classifiers, of 1,000 classes, without the final norm."""
    shapes = {**pair("patch_embed.proj", embed_dim, 3, 4, 4), **norm("patch_embed.norm", embed_dim)}
    for i, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
        c = embed_dim * 2**i
        for j in range(depth):
            block = f"layers.{i}.blocks.{j}"
            shapes |= {**norm(f"{block}.norm1", c), **norm(f"{block}.norm2", c), **pair(f"{block}.attn.qkv", 3 * c, c)}
            shapes |= {**pair(f"{block}.attn.proj", c, c), **pair(f"{block}.mlp.fc1", 4 * c, c)}
            shapes |= {**pair(f"{block}.mlp.fc2", c, 4 * c)}
            shapes[f"{block}.attn.relative_position_bias_table"] = ((2 * window_size - 1) ** 2, heads)
            shapes[f"{block}.attn.relative_position_index"] = (window_size**2, window_size**2)
        if i < 3:
            shapes |= norm(f"layers.{i}.downsample.norm", 4 * c)
            shapes[f"layers.{i}.downsample.reduction.weight"] = (2 * c, 4 * c)
    return shapes | pair("head", 1000, 8 * embed_dim) | norm("norm", 8 * embed_dim)


def official_convnext(depths: list[int], channels: list[int]) -> Shapes:
    """Return names and shapes in the authors' files of classifiers, of 1,000 classes."""
    shapes = {**pair("downsample_layers.0.0", channels[0], 3, 4, 4), **norm("downsample_layers.0.1", channels[0])}
    for i, (depth, c) in enumerate(zip(depths, channels, strict=True)):
        if i:
            shapes |= norm(f"downsample_layers.{i}.0", channels[i - 1])
            shapes |= pair(f"downsample_layers.{i}.1", c, channels[i - 1], 2, 2)
        for j in range(depth):
            block = f"stages.{i}.{j}"
            shapes |= {f"{block}.gamma": (c,), **pair(f"{block}.dwconv", c, 1, 7, 7), **norm(f"{block}.norm", c)}
            shapes |= {**pair(f"{block}.pwconv1", 4 * c, c), **pair(f"{block}.pwconv2", c, 4 * c)}
    return shapes | norm("norm", channels[-1]) | pair("head", 1000, channels[-1])


def drawn(shapes: Shapes) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {key: torch.randn(shape) * 0.2 + (key.endswith("norm.weight")) for key, shape in shapes.items()}


def bare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix("backbone."): value for key, value in state.items()}


def without_output_norms(model: Backbone) -> Backbone:
    for name in ALL:
        model.norms[name] = nn.Identity()
    return model.eval()


@torch.no_grad()
def test_swin_equals_timm_where_nothing_is_padded() -> None:
    """With the authors' names read by both; 64 pixels are 16, 8, 4 and 2 tokens, multiples of the window."""
    state = drawn(official_swin(**SMALL_SWIN))
    reference = timm.create_model("swin_tiny_patch4_window7_224", img_size=64, **SMALL_SWIN).eval()
    reference.load_state_dict(timm_swin.checkpoint_filter_fn(dict(state), reference), strict=True)
    ours = SwinTransformer(out_features=ALL, **SMALL_SWIN)
    missing = ours.load_state_dict(bare(convert(state, num_classes=None)), strict=False)
    assert not missing.unexpected_keys and all(key.startswith("norms.") for key in missing.missing_keys)
    image = torch.randn(2, 3, 64, 64)
    expected = reference.forward_intermediates(image, intermediates_only=True)
    for found, wanted in zip(without_output_norms(ours)(image).values(), expected, strict=True):
        assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    again = bare(convert(reference.state_dict(), num_classes=None))  # timm's own names
    assert all(torch.equal(again[key], value) for key, value in ours.state_dict().items())


@torch.no_grad()
def test_convnext_equals_timm() -> None:
    """With the authors' names read by both, at multiples of 32."""
    state = drawn(official_convnext(**SMALL_CONVNEXT))
    sizes = dict(depths=SMALL_CONVNEXT["depths"], dims=SMALL_CONVNEXT["channels"])
    reference = timm.create_model("convnext_tiny", **sizes).eval()
    reference.load_state_dict(timm_convnext.checkpoint_filter_fn(dict(state), reference), strict=True)
    ours = ConvNeXt(out_features=ALL, **SMALL_CONVNEXT)
    missing = ours.load_state_dict(bare(convert(state, num_classes=None)), strict=False)
    assert not missing.unexpected_keys and all(key.startswith("norms.") for key in missing.missing_keys)
    image = torch.randn(2, 3, 64, 96)
    expected = reference.forward_intermediates(image, intermediates_only=True)
    for found, wanted in zip(without_output_norms(ours)(image).values(), expected, strict=True):
        assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_top_of_an_image_does_not_reach_its_bottom() -> None:
    """Nine rows in windows of 4, shifted by 2: row 8 sees rows 4 to 8 and the padding, no more, as maps are padded
    before they are shifted.
    """
    model = SwinTransformer(**{**SMALL_SWIN, "window_size": 4, "depths": [2, 1, 1, 1]}, out_features=["res2"]).eval()
    image = torch.randn(1, 3, 36, 36)
    other = image.clone()
    other[:, :, :16] += torch.randn(1, 3, 16, 36)
    first, second = model(image)["res2"], model(other)["res2"]
    assert torch.equal(first[:, :, 8:], second[:, :, 8:])
    assert not torch.equal(first[:, :, 4:8], second[:, :, 4:8])


@torch.no_grad()
def test_windows_without_padding_are_the_same_in_any_batch() -> None:
    """Of an image of 32 rows padded to 64, windows of 4 tokens hold no padding. One of 40 rows has a window that does,
    where alone the tokens beyond the image are zero and in the batch those of zero pixels: evaluation therefore
    computes each size alone.
    """
    model = SwinTransformer(**{**SMALL_SWIN, "window_size": 4}, out_features=["res2"]).eval()
    nn.init.normal_(model.features[0][0].bias)
    for rows, same in ((32, 8), (40, 8)):
        image = torch.randn(1, 3, rows, 32)
        alone = model(image)["res2"]
        padded = model(nn.functional.pad(image, (0, 0, 0, 64 - rows)))["res2"]
        assert_close(padded[:, :, :same], alone[:, :, :same], rtol=1e-5, atol=1e-6)
        assert rows // 4 == same or (padded[:, :, same : rows // 4] - alone[:, :, same:]).abs().max() > 1e-4


def vitdet() -> TimmBackbone:
    return TimmBackbone(name="samvit_base_patch16", out_features=["res4"], options=SMALL_VITDET)


BUILDERS: dict[str, Callable[[], Backbone]] = {
    "swin": lambda: SwinTransformer(**SMALL_SWIN, out_features=ALL),
    "convnext": lambda: ConvNeXt(**SMALL_CONVNEXT, out_features=ALL),
    "pyramid": lambda: SimplePyramid(net=vitdet(), out_channels=8, out_features=ALL),
    "timm resnet": lambda: TimmBackbone(name="resnet10t", out_features=ALL),
    "timm swin": lambda: TimmBackbone(
        name="swin_tiny_patch4_window7_224", out_features=["res3", "stage3"], options=SMALL_SWIN
    ),
    "timm vit": lambda: TimmBackbone(name="vit_tiny_patch16_224", out_features=["stage0", "res4"], options=SMALL_VIT),
    "timm vit of patch 14": lambda: TimmBackbone(
        name="vit_small_patch14_dinov2", out_features=["stage1"], options=SMALL_VIT
    ),
    "timm, channels last": lambda: TimmBackbone(name="mambaout_femto", out_features=["res3", "res5"]),
}


@pytest.mark.parametrize("name", BUILDERS)
def test_maps_of_an_odd_size(name: str) -> None:
    """Every output has the channels of its specification, and the image's size over the stride, rounded up."""
    model = BUILDERS[name]()
    outputs = model(torch.randn(1, 3, 45, 97))
    assert list(outputs) == list(model.output_shape())
    for key, shape in model.output_shape().items():
        assert outputs[key].shape == (1, shape.channels, -(-45 // shape.stride), -(-97 // shape.stride)), key
    sum(x.sum() for x in outputs.values()).backward()
    assert [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_strides_of_timm_are_the_models() -> None:
    shapes = TimmBackbone(name="resnet10t", out_features=[*ALL, "stage0"]).output_shape()
    assert [(x.channels, x.stride) for x in shapes.values()] == [(64, 4), (128, 8), (256, 16), (512, 32), (64, 2)]


@pytest.mark.parametrize("name", ["swin", "convnext", "timm"])
def test_drop_path_is_for_training_alone(name: str) -> None:
    model: Backbone = {
        "swin": lambda: SwinTransformer(**SMALL_SWIN, drop_path=0.5),
        "convnext": lambda: ConvNeXt(**SMALL_CONVNEXT, drop_path=0.5),
        "timm": lambda: TimmBackbone(
            name="vit_tiny_patch16_224", out_features=["res4"], drop_path=0.5, options=SMALL_VIT
        ),
    }[name]()
    torch.manual_seed(0)
    image = torch.randn(16, 3, 32, 32)
    maps = [list(model.train(mode)(image).values())[-1] for mode in (False, False, True, True)]
    assert torch.equal(maps[0], maps[1]) and not torch.equal(maps[2], maps[3])


def test_frozen_stages() -> None:
    """Of Swin and ConvNeXt, 1 is the stem and 2 ends with res2; of timm's ResNet, 1 is the stem of three convolutions
    and their norms, 2 ends with layer1. Batch norms of timm do not train.
    """
    for model in (SwinTransformer(**SMALL_SWIN, freeze_at=2), ConvNeXt(**SMALL_CONVNEXT, freeze_at=2)):
        frozen = {key.split(".")[1] for key, p in model.named_parameters() if not p.requires_grad}
        assert frozen == {"0", "1"}
        assert model.stages["res3"] == ["features.2", "features.3"]
    model = TimmBackbone(name="resnet10t", frozen_stages=2)
    trained = {key.split(".")[2] for key, p in model.named_parameters() if p.requires_grad}
    assert trained == {"layer2", "layer3", "layer4"}
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in TimmBackbone(name="resnet10t", frozen_norms=False).modules())


LARGE = dict(embed_dim=192, depths=[2, 2, 18, 2], num_heads=[6, 12, 24, 48], window_size=12)
TINY = dict(embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], window_size=7)
PUBLISHED: dict[str, tuple[Shapes, type[Backbone], dict, int]] = {  # shapes, class, its arguments, parameters
    "swin_tiny_patch4_window7_224": (official_swin(**TINY), SwinTransformer, TINY, 28_288_354),
    "swin_large_patch4_window12_384_22kto1k": (official_swin(**LARGE), SwinTransformer, LARGE, 196_735_516),
    "convnext_tiny_22k_1k_384": (official_convnext([3, 3, 9, 3], [96, 192, 384, 768]), ConvNeXt, {}, 28_589_128),
}


@pytest.mark.parametrize("file", PUBLISHED)
def test_published_names_load(file: str) -> None:
    """Every tensor of the authors' files, whose parameters are as many as published, has its place and shape; the norms
    of the outputs alone are new. As a part of detrex's DINO, the same names and those norms fill the whole backbone.
    """
    shapes, kind, arguments, parameters = PUBLISHED[file]
    indices = [key for key in shapes if key.endswith("_index")]
    assert sum(torch.Size(shape).numel() for key, shape in shapes.items() if key not in indices) == parameters
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    with torch.device("meta"):
        model = kind(**arguments, out_features=ALL)
    own = {key: value.shape for key, value in model.state_dict().items()}
    found = {key: value.shape for key, value in bare(convert(state, num_classes=None)).items()}
    assert {key: shape for key, shape in own.items() if not key.startswith("norms.")} == found
    detrex = {f"backbone.{key}": x for key, x in state.items() if not key.startswith(("norm.", "head."))}
    for i, output in enumerate(ALL):
        channels = own[f"norms.{output}.weight"]
        detrex |= {f"backbone.norm{i}.{part}": torch.empty(channels, device="meta") for part in ("weight", "bias")}
    for key, shape in (("transformer.level_embeds", (5, 256)), ("label_enc.weight", (80, 256))):
        detrex[key] = torch.empty(shape, device="meta")
    converted = convert(detrex, num_classes=80)
    assert {k.removeprefix("backbone."): x.shape for k, x in converted.items() if k.startswith("backbone.")} == own
    expected = "dino/dino_swin_large_384_5scale_12ep.py" if "large" in file else None
    assert dino_config(detrex) == expected


def test_torchvision_weights_load() -> None:
    """Of torchvision's Swin-T and ConvNeXt-T, by their own names."""
    from torchvision.models import convnext_tiny, swin_t

    with torch.device("meta"):
        for reference, model in (
            (swin_t(), SwinTransformer(out_features=ALL)),
            (convnext_tiny(), ConvNeXt(out_features=ALL)),
        ):
            found = {k: x.shape for k, x in bare(convert(reference.state_dict(), num_classes=None)).items()}
            own = {k: x.shape for k, x in model.state_dict().items() if not k.startswith("norms.")}
            assert found == own


class Detector(nn.Module):
    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone


def test_files_of_timm_load() -> None:
    """A file has timm's own names; what is not in the model is reported."""
    options = dict(embed_dim=16, depth=2, num_heads=2)
    reference = timm.create_model("vit_tiny_patch16_224", **options)
    model = Detector(TimmBackbone(name="vit_tiny_patch16_224", out_features=["res4"], options=options))
    report = load_weights(model, Weights(reference.state_dict(), False, None, None, None, "a.pth"))
    assert not report.new and sorted(report.left_over) == ["head.bias", "head.weight", "norm.bias", "norm.weight"]
    assert torch.equal(model.backbone.net.model.pos_embed, reference.pos_embed)


def test_a_file_of_mae_loads_into_vitdet() -> None:
    """Names of the plain ViT; its position embeddings lose the class token. Relative positions are new."""
    reference = timm.create_model("vit_tiny_patch16_224", **SMALL_VIT)
    model = Detector(SimplePyramid(net=vitdet(), out_channels=8))
    report = load_weights(model, Weights(reference.state_dict(), False, None, None, None, "a.pth"))
    table = model.backbone.net.net.model.pos_embed
    assert torch.equal(table.flatten(1, 2), reference.pos_embed[:, 1:])
    assert all("rel_pos" in key or ".levels." in key for key in report.new) and "cls_token" in report.left_over


def test_pixel_statistics() -> None:
    """ImageNet's mean (0.485, 0.456, 0.406) and deviation times 255, and those of the weights that want others."""
    expected = {"pixel_mean": [123.675, 116.28, 103.53], "pixel_std": [58.395, 57.12, 57.375]}
    found = pixel_statistics("resnet50")
    assert all(found[key] == pytest.approx(value) for key, value in expected.items())
    assert pixel_statistics("vit_base_patch16_224")["pixel_mean"] == [127.5] * 3
    with pytest.raises(ConfigError, match="no mean and deviation for 'convnext_tiny_in22ft1k': set model.pixel_mean"):
        pixel_statistics("convnext_tiny_in22ft1k")  # a former name


@pytest.mark.parametrize(
    ("raised", "kind", "reason"),
    [
        (LocalEntryNotFoundError("Check the connection.\nIt is off."), EnvironmentProblem, "LocalEntryNotFoundError"),
        (RuntimeError("No weights exist.\nUse others."), ConfigError, "No weights exist"),
    ],
)
def test_weights_that_cannot_be_downloaded(
    raised: Exception, kind: type[Exception], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = timm.create_model

    def without_network(name: str, pretrained: bool = False, **arguments: Any) -> nn.Module:
        if pretrained:
            raise raised
        return build(name, **arguments)

    monkeypatch.setattr(timm, "create_model", without_network)
    with pytest.raises(kind) as caught:
        TimmBackbone(name="resnet10t", pretrained=True)
    assert str(caught.value) == (
        f"timm's weights of 'resnet10t' cannot be loaded ({reason}): set model.backbone.pretrained=False, and "
        "train.init_checkpoint to a file of them."
    )


@torch.no_grad()
def test_convolutions_that_do_not_pad() -> None:
    """100 x 90 pixels are padded to 128 x 96. Kernels of 3 with strides 2, 1, 1 (this one padded), 2 (a pool), 1
    (of one cell), 1 and 2 (a pool) make 63, 61, 61, 30, 30, 28, 13 of 128 and 47, 45, 45, 22, 22, 20, 9 of 96, while a
    stride of 8 says 16 and 12.
    """
    model = TimmBackbone(name="inception_v3", out_features=["res3"]).eval()
    with pytest.raises(
        ConfigError, match="'inception_v3' gives 'res3' in 13 x 9 cells for 128 x 96 .* says 16 x 12: set"
    ):
        model(torch.zeros(1, 3, 90, 100))


def test_what_cannot_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="SwinTransformer has no output 'p3'"):
        SwinTransformer(out_features=["p3"])
    with pytest.raises(ValueError, match="freeze_at is 6, but ConvNeXt has stages 1 to 5"):
        ConvNeXt(freeze_at=6)
    for arguments, message in [
        (dict(name="resnet51"), "timm has no model 'resnet51'"),
        (dict(name="hf-hub:timm/resnet50"), "timm has no model 'hf-hub"),
        (dict(name="resnet10t", out_features=["res6"]), "no output 'res6': set .* stage0, stage1, .*, res5"),
        (dict(name="resnet10t", frozen_stages=6), "frozen_stages is 6, but timm's 'resnet10t' has 5 stages"),
        (dict(name="resnet10t", options=dict(no=1)), "does not take the arguments"),
        (dict(name="resnet10t", options=dict(checkpoint_path="a")), "has 'checkpoint_path'"),
        (dict(name="resnet10t", options=dict(output_stride=5)), r"arguments of model.backbone \(.*correct its options"),
        (dict(name="resnet10t", options=dict(in_chans=1)), "has in_chans=1, but images have 3 channels: remove it"),
        (dict(name="resnet10t", options=dict(features_only=False)), "has 'features_only', which .*name: remove it"),
        (dict(name="resnet10t", options=dict(out_indices=[1])), "has 'out_indices', which .*out_features: remove it"),
        (dict(name="resnet10t", options=dict(drop_path_rate=0.1), drop_path=0.2), "has drop_path, and drop_path_rate"),
        (dict(name="resnet10t", out_features=[]), "out_features is empty: set it to some of stage0, .*, res5"),
        (dict(name="resnet18.no"), r"timm has no weights 'resnet18.no': take one of .*'resnet18\.\*'.* or 'resnet18'"),
    ]:
        with pytest.raises(ConfigError, match=message):
            TimmBackbone(**arguments)
    with pytest.raises(
        ConfigError, match="no output 'res2' of a map of stride 32: set .*out_features to some of res3, res4, res5"
    ):
        SimplePyramid(net=TimmBackbone(name="resnet10t"), in_feature="res5", out_features=["res2"])
    dino = TimmBackbone(name="vit_small_patch14_dinov2", out_features=["stage1"], options=SMALL_VIT)
    with pytest.raises(
        ConfigError, match="'stage1' has stride 14, of which .* set model.backbone.net to a model whose"
    ):
        SimplePyramid(net=dino, in_feature="stage1")
    with pytest.raises(ConfigError, match="timm has no weights 'resnet18.no'"):
        pixel_statistics("resnet18.no")
    with pytest.raises(ConfigError, match="in_feature is 'res4', but the net gives res3"):
        SimplePyramid(net=TimmBackbone(name="resnet10t", out_features=["res3"]))
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        EnvironmentProblem, match=r"'resnet50' needs the package timm: pip install 'align_detr\[timm\]'"
    ):
        TimmBackbone(name="resnet50")
    with pytest.raises(EnvironmentProblem, match="pixel_statistics"):
        pixel_statistics("resnet50")
