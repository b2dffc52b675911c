"""Any model of timm that gives features, as a detectron2 backbone. timm is an optional package."""

import inspect
import math
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn

from align_detr.errors import AlignDetrError, ConfigError, EnvironmentProblem
from align_detr.modeling.backbone.four_stages import ceil_divide, cropped, pad_to_multiple

_ANY_SIZE = {"dynamic_img_size": True, "strict_img_size": False}  # arguments for images of any size, the first there is
_OWN = {"features_only": "name", "out_indices": "out_features", "feature_cls": "name"}  # set here, by these keywords


class TimmBackbone(Backbone):
    """The model `name` of timm, such as "resnet50" or "vit_base_patch16_224", for images of any size.

    Strides and channels are the model's. Its outputs are `stage0`, `stage1`, ... in timm's order, and `res2` to `res5`
    the last ones of stride 4 to 32; a plain ViT of patch 16 has its last block as res4. Images are padded with zeros to
    multiples of `divisor`, by default the least common multiple of all strides. `pretrained` downloads timm's weights
    while the model is built; a file of them is read by `train.init_checkpoint` as well. The first `frozen_stages` do
    not train, `frozen_norms` fixes all batch norms. `drop_path` and `options` are arguments of timm's model.

    Raise EnvironmentProblem without timm or its weights, and ConfigError for a name, output or argument that timm has
    not. With the first image, raise ConfigError for a model whose maps are smaller than its strides say, such as
    inception_v3, whose convolutions do not pad.
    """

    def __init__(
        self,
        *,
        name: str,
        out_features: Sequence[str] = ("res3", "res4", "res5"),
        pretrained: bool = False,
        frozen_stages: int = 0,
        frozen_norms: bool = True,
        drop_path: float = 0.0,
        divisor: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        timm = import_timm(f"The backbone '{name}'")
        arguments = _arguments(timm, drop_path, options or {})
        with torch.device("meta"):  # says what there is, without weights
            probe = _create(timm, name, arguments)
            takes = inspect.signature(type(probe).__init__).parameters
            arguments |= next(({key: value} for key, value in _ANY_SIZE.items() if key in takes), {})
        infos = getattr(probe, "feature_info", None)
        if not infos:
            raise ConfigError(f"timm's '{name}' gives no features: take a model of timm.list_models() that does.")
        strides = [int(info["reduction"]) for info in infos]
        named = {f"stage{i}": i for i in range(len(infos))}
        named |= {f"res{int(math.log2(s))}": i for i, s in enumerate(strides) if s in (4, 8, 16, 32)}
        if not out_features:
            raise ConfigError(f"model.backbone.out_features is empty: set it to some of {', '.join(named)}.")
        unknown = [output for output in out_features if output not in named]
        if unknown:
            raise ConfigError(
                f"timm's '{name}' has no output '{unknown[0]}': set model.backbone.out_features to some of "
                f"{', '.join(named)}."
            )
        if not 0 <= frozen_stages <= len(infos):
            raise ConfigError(
                f"model.backbone.frozen_stages is {frozen_stages}, but timm's '{name}' has {len(infos)} stages: set it "
                "from 0, which freezes none, to that."
            )
        self._name = name
        self._out_features = list(out_features)
        self._indices = [named[output] for output in out_features]
        self._shapes = {
            output: ShapeSpec(channels=int(infos[i]["num_chs"]), stride=strides[i])
            for output, i in zip(out_features, self._indices, strict=True)
        }
        self._divisor = divisor or math.lcm(*strides)
        getter = {"feature_cls": "getter"} if hasattr(probe, "forward_intermediates") else {}
        self.net = _create(
            timm,
            name,
            {**arguments, **getter, "features_only": True, "out_indices": sorted(set(self._indices))},
            pretrained=pretrained,
        )
        if frozen_norms:
            self.net = timm.layers.freeze_batch_norm_2d(self.net)
        if frozen_stages:
            self._freeze(str(infos[frozen_stages - 1]["module"]))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map images (B, 3, h, w) to outputs (B, channels, h / stride, w / stride) by name, sizes rounded up."""
        height, width = x.shape[-2:]
        padded = pad_to_multiple(x, self._divisor)
        found = dict(zip(sorted(set(self._indices)), self.net(padded), strict=True))
        maps = {}
        for name, i in zip(self._out_features, self._indices, strict=True):
            channels_last = found[i].shape[1] != self._shapes[name].channels
            maps[name] = found[i].permute(0, 3, 1, 2).contiguous() if channels_last else found[i]
        if not (torch.jit.is_tracing() or torch.compiler.is_compiling()):  # sizes may be symbols there
            self._require_sizes(maps, padded)
        return cropped(maps, self._shapes, height, width)

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return channels and stride of every output."""
        return dict(self._shapes)

    def published_names(self, state: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
        """Return name here and tensor of each entry, by its name in a file of this model's weights that is here too.

        A table of position embeddings that has another size is interpolated, and its class token left out where the
        model has none.
        """
        own = self.state_dict()
        found: dict[str, tuple[str, Tensor]] = {}
        for prefix in ("net.model.", "net."):
            found |= {key: (prefix + key, value) for key, value in state.items() if prefix + key in own}
        for key, (name, value) in found.items():
            if key.endswith("pos_embed") and value.shape != own[name].shape:
                found[key] = name, _resized(value, own[name].shape)
        return found

    def _require_sizes(self, maps: Mapping[str, Tensor], x: Tensor) -> None:
        """Raise ConfigError for a map that is smaller than the images (B, 3, h, w) over its stride."""
        height, width = x.shape[-2:]
        for name, shape in self._shapes.items():
            h, w = maps[name].shape[-2:]
            expected = ceil_divide(height, shape.stride), ceil_divide(width, shape.stride)
            if h < expected[0] or w < expected[1]:
                raise ConfigError(
                    f"timm's '{self._name}' gives '{name}' in {w} x {h} cells for {width} x {height} pixels, where its "
                    f"stride of {shape.stride} says {expected[1]} x {expected[0]}: set model.backbone.name to a model "
                    "whose convolutions pad, or divisor to a multiple of all strides."
                )

    def _freeze(self, last: str) -> None:
        """Freeze all parameters up to the module `last` of timm's model, in the order in which it has its modules."""
        modules = dict(self.net.named_modules())
        flat = f".{last}.".replace(".", "_")  # features that timm has no getter for have such names
        inside = [i for i, name in enumerate(modules) if flat in f".{name}.".replace(".", "_")]
        if not inside:
            raise ConfigError(
                f"timm's model has no module '{last}' to freeze: set train.freeze in place of frozen_stages."
            )
        for module in list(modules.values())[: inside[-1] + 1]:
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)


def pixel_statistics(name: str) -> dict[str, list[float]]:
    """Return `pixel_mean` and `pixel_std`, of RGB from 0 to 255, that the weights of timm's model `name` expect.

    A config takes them over with `model.update(pixel_statistics(name))`. Raise as TimmBackbone does.
    """
    timm = import_timm(f"pixel_statistics('{name}')")
    _require_name(timm, name)
    config = timm.get_pretrained_cfg(name)
    if config is None:  # of a former name, which timm still builds
        raise ConfigError(f"timm states no mean and deviation for '{name}': set model.pixel_mean and pixel_std.")
    return {"pixel_mean": [255 * x for x in config.mean], "pixel_std": [255 * x for x in config.std]}


def import_timm(what: str) -> ModuleType:
    """Return the package timm; raise EnvironmentProblem, which says what needs it, if it is not installed."""
    try:
        import timm
    except ImportError as error:
        raise EnvironmentProblem(f"{what} needs the package timm: pip install 'align_detr[timm]'.") from error
    return timm


def _arguments(timm: ModuleType, drop_path: float, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of timm's model; raise ConfigError for options that are none or that would be replaced."""
    for key in sorted(options):
        if key in inspect.signature(timm.create_model).parameters:
            raise ConfigError(f"model.backbone.options has '{key}', no argument of a model of timm: remove it.")
        if key in _OWN:
            raise ConfigError(
                f"model.backbone.options has '{key}', which follows from model.backbone.{_OWN[key]}: remove it."
            )
    if options.get("in_chans", 3) != 3:
        raise ConfigError(
            f"model.backbone.options has in_chans={options['in_chans']}, but images have 3 channels: remove it."
        )
    if drop_path and "drop_path_rate" in options:
        raise ConfigError("model.backbone has drop_path, and drop_path_rate among its options: remove that one.")
    return {**options, **({"drop_path_rate": drop_path} if drop_path else {})}


def _require_name(timm: ModuleType, name: str) -> None:
    """Raise ConfigError for a model or a tag of weights that timm has not; it is never looked up elsewhere."""
    if not timm.is_model(name):
        raise ConfigError(f"timm has no model '{name}': take one of timm.list_models().")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:  # of the tag
        model = name.partition(".")[0]
        raise ConfigError(
            f"timm has no weights '{name}': take one of timm.list_models('{model}.*', pretrained=True), or '{model}'."
        ) from error


def _create(timm: ModuleType, name: str, arguments: Mapping[str, Any], pretrained: bool = False) -> nn.Module:
    """Return timm's model. With `pretrained` the arguments are known to fit, so what fails is about the weights."""
    _require_name(timm, name)
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **arguments)
    except Exception as error:  # of the network, every version of its packages has others
        if pretrained:
            kind: type[AlignDetrError] = ConfigError  # no such weights, or other shapes
            if not isinstance(error, RuntimeError):
                kind = EnvironmentProblem
            raise kind(
                f"timm's weights of '{name}' cannot be loaded ({_reason(error)}): set model.backbone.pretrained=False, "
                "and train.init_checkpoint to a file of them."
            ) from error
        raise ConfigError(
            f"timm's '{name}' does not take the arguments of model.backbone ({_reason(error)}): correct its options."
        ) from error
    return model


def _reason(error: Exception) -> str:
    """Return the first line of an error, which of an error of the network is its kind."""
    if isinstance(error, (TypeError, RuntimeError, AssertionError)) and str(error):
        return str(error).splitlines()[0].rstrip(".:")
    return type(error).__name__


def _resized(table: Tensor, shape: Sequence[int]) -> Tensor:
    """Return position embeddings (1, tokens, C), a square of patches perhaps after class tokens, in another shape: of
    (1, h, w, C), or of tokens with the same class tokens.
    """
    tokens = table.flatten(1, -2)  # (1, T, C)
    side = math.isqrt(tokens.shape[1])
    first = tokens.shape[1] - side * side
    height, width = (shape[1], shape[2]) if len(shape) == 4 else (math.isqrt(shape[1]),) * 2
    patches = tokens[:, first:].unflatten(1, (side, side)).permute(0, 3, 1, 2)  # (1, C, side, side)
    if (height, width) != (side, side):
        patches = F.interpolate(patches.float(), (height, width), mode="bicubic", align_corners=False).to(table.dtype)
    patches = patches.permute(0, 2, 3, 1)
    return patches if len(shape) == 4 else torch.cat([tokens[:, :first], patches.flatten(1, 2)], dim=1)
