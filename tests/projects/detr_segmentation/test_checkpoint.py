"""Released weights of panoptic DETR: every name, and the rows of the classifier."""

import pytest
import torch
from detectron2.config import instantiate
from torch import Tensor, nn

import align_detr.projects.detr_segmentation  # noqa: F401  (registers the release)
from align_detr.checkpoint.conversion import convert, find_release
from align_detr.errors import ConfigError
from align_detr.projects.detr_segmentation.checkpoint import coco_panoptic_ids
from support.official import official_names
from support.shrink import config, small_model

NUMBER_OF = {"conv": "lay", "norm": "gn"}


def released_name(key: str) -> str:
    """Return the released name of an entry of `masks`, part by part."""
    _, part, name, *rest = key.split(".")
    if part == "attention":
        return f"bbox_attention.{name[0]}_linear.{rest[0]}"
    if name == "output":
        return f"mask_head.out_lay.{rest[0]}"
    if name == "adapters":
        return f"mask_head.adapter{int(rest[0]) + 1}.{rest[1]}"
    index, kind, tensor = rest
    return f"mask_head.{NUMBER_OF[kind]}{int(index) + 1}.{tensor}"


def test_every_mask_tensor_has_a_released_name() -> None:
    """32 of them, bbox_attention.{q,k}_linear and mask_head.{lay1..5,gn1..5,adapter1..3,out_lay}."""
    with torch.device("meta"):
        ours = instantiate(config("DETRSegmentation/detr_r50_panoptic_25ep.py").model.masks).state_dict()
    state: dict[str, Tensor] = {released_name(f"masks.{key}"): value for key, value in ours.items()}
    assert len(state) == len(ours) == 32
    converted = convert(state, num_classes=133)
    assert {key: value.shape for key, value in converted.items()} == {
        f"masks.{key}": value.shape for key, value in ours.items()
    }
    with pytest.raises(ConfigError, match=r"mask_head\.lay6\.weight' is not one of DETR's segmentation's"):
        convert({**state, "mask_head.lay6.weight": torch.zeros(1)}, num_classes=133)
    with pytest.raises(ConfigError, match="The key 'other' is not one of DETR's"):
        convert({**state, "detr.other": torch.zeros(1)}, num_classes=133)


def test_rows_of_coco_s_panoptic_classes() -> None:
    """80 things and 53 kinds of stuff, by their ids, and "no object", which is the last of 251 rows."""
    ids = coco_panoptic_ids()
    assert len(ids) == len(set(ids)) == 133 and max(ids) == 200
    assert ids[:80] == sorted(ids[:80]) and ids[79] == 90 and ids[80:] == sorted(ids[80:]) and ids[80] == 92
    state = {
        "bbox_attention.q_linear.weight": torch.zeros(1),
        "mask_head.lay1.weight": torch.zeros(1),
        "detr.class_embed.bias": torch.arange(251.0),
    }
    release = find_release(state)
    assert release is not None and release.config is not None
    assert release.config(state) == "DETRSegmentation/detr_r50_panoptic_25ep.py"
    for num_classes in (133, 80, None):
        assert convert(state, num_classes=num_classes)["head.class_embed.bias"].tolist() == [*ids, 250]


def test_a_whole_released_state_loads_strictly() -> None:
    torch.manual_seed(0)
    node = small_model("DETRSegmentation/detr_r50_panoptic_25ep.py")
    model, other = instantiate(node), instantiate(node)
    for detector in (model, other):  # the names of ResNets are DETR's, and tested there
        detector.backbone = nn.ModuleDict({"stem": nn.ModuleDict({"conv1": nn.Conv2d(3, 4, 3, bias=False)})})
    own = model.state_dict()
    released = {f"detr.{key}": value for key, value in official_names(model).items()}
    released |= {released_name(key): value for key, value in own.items() if key.startswith("masks.")}
    assert "detr.query_embed.weight" in released
    other.load_state_dict(released, strict=True)
    assert all(torch.equal(value, own[key]) for key, value in other.state_dict().items())
