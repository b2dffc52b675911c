"""A tiny DETR under the names of the official code."""

import torch
from torch import nn

from align_detr.modeling.meta_arch import DETR
from support.detectors import tiny_detr


def small_detr(num_classes: int = 3) -> DETR:
    """Return a tiny DETR whose backbone has one weight."""
    model = tiny_detr(num_classes=num_classes)
    model.backbone = nn.ModuleDict({"stem": nn.ModuleDict({"conv1": nn.Conv2d(3, 4, 3, bias=False)})})
    return model


def official_names(model: DETR) -> dict[str, torch.Tensor]:
    """Return `model` under the names of the official code, written out by hand."""
    layer = {"self_attn": "self_attn", "ffn.linear1": "linear1", "ffn.linear2": "linear2", "self_attn_norm": "norm1"}
    names = {
        "encoder": {**layer, "ffn_norm": "norm2"},
        "decoder": {**layer, "cross_attn": "multihead_attn", "cross_attn_norm": "norm2", "ffn_norm": "norm3"},
    }
    state = {}
    for key, value in model.state_dict().items():
        part, *rest = key.split(".")
        if part == "backbone":
            state["backbone.0.body.conv1.weight"] = value
        if part in names and rest[0] == "layers":
            module, _, leaf = ".".join(rest[2:]).rpartition(".")
            for ours, theirs in sorted(names[part].items(), key=lambda item: -len(item[0])):
                if module == ours or module.startswith(f"{ours}."):
                    module = theirs + module[len(ours) :]
                    break
            state[f"transformer.{part}.layers.{rest[1]}.{module}.{leaf}"] = value
        elif part == "decoder":
            state[f"transformer.decoder.{'.'.join(rest)}"] = value
        elif part == "head":
            state[".".join(rest)] = value
        elif key == "queries.position.weight":
            state["query_embed.weight"] = value
        elif part == "neck":
            state[f"input_proj.{rest[-1]}"] = value
    return state
