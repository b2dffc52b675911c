"""Weights trained with the official TSP-RCNN code under the names of this project. No such weights are published.

| official                                         | here                                                            |
|--------------------------------------------------|-----------------------------------------------------------------|
| `backbone.*`                                     | see `checkpoint`                                                |
| `proposal_generator.rpn_head.{obj,anchor}_conv.I.conv` | `... .{objectness,delta}_tower.convs.I`                   |
| `... .{obj,anchor}_bn_list.LEVEL.I`              | `... .{objectness,delta}_tower.norms.LEVEL.I`                   |
| `roi_heads.box_head.input_proj`                  | `roi_heads.stages.0.transformer.projection`                     |
| `... .dec_pos_embed_proj`, `post_input_proj_norm` | `... .position_projection`, `norm`                             |
| `... .transformer_encoder.*`                     | `... .encoder.*`, see `checkpoint`                              |
| `roi_heads.box_predictor.cls_score`, `bbox_pred` | `roi_heads.stages.0.classifier.linear`, `boxes.mlp`             |

With iterative refinement `box_head.K` and `box_predictor.K` become `stages.K`. Pixel means and anchors are constants
and left out.
"""

from collections.abc import Mapping

from torch import Tensor

from align_detr.checkpoint.key_map import Rules, rename
from align_detr.projects.tsp.checkpoint import backbone_rules, encoder_rules

_RPN = r"proposal_generator\.rpn_head\."
_STAGES = {"": 0, **{rf"{k}\.": k for k in range(4)}}  # what official keys say of the stage: nothing where there is one


def _stage_rules(official: str, stage: int) -> Rules:
    """The region head and the predictors of one stage."""
    head, predictor = rf"roi_heads\.box_head\.{official}", rf"roi_heads\.box_predictor\.{official}"
    ours = f"roi_heads.stages.{stage}."
    return [
        (head + r"input_proj\.(.+)", rf"{ours}transformer.projection.\1"),
        (head + r"dec_pos_embed_proj\.(.+)", rf"{ours}transformer.position_projection.\1"),
        (head + r"post_input_proj_norm\.(.+)", rf"{ours}transformer.norm.\1"),
        *encoder_rules(head + r"transformer_encoder\.", f"{ours}transformer.encoder."),
        (predictor + r"cls_score\.(.+)", rf"{ours}classifier.linear.\1"),
        (predictor + r"bbox_pred\.(.+)", rf"{ours}boxes.mlp.\1"),
    ]


def _tower_rules(official: str, ours: str) -> Rules:
    """One tower of the proposal head."""
    tower = f"proposal_generator.rpn_head.{ours}_tower."
    return [
        (rf"{_RPN}{official}_conv\.(\d+)\.conv\.(.+)", rf"{tower}convs.\1.\2"),
        (rf"{_RPN}{official}_bn_list\.(.+)", rf"{tower}norms.\1"),
    ]


_RULES: Rules = [
    *backbone_rules(),
    *_tower_rules("obj", "objectness"),
    *_tower_rules("anchor", "delta"),
    (rf"({_RPN}(?:objectness_logits|anchor_deltas)\..+)", r"\1"),
    *(rule for official, stage in _STAGES.items() for rule in _stage_rules(official, stage)),
    (r"proposal_generator\.anchor_generator\..+", ""),  # constants
]


def convert_official_tsp_rcnn(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The official entries under this project's names. Raises `ConfigError` for a key that is not TSP-RCNN's."""
    return rename(state, _RULES, "TSP-RCNN")
