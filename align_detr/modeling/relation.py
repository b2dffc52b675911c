"""Position relations between queries as a bias of the decoder's self-attention (Relation-DETR)."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from align_detr.checks import check_count, check_number
from align_detr.errors import ConfigError
from align_detr.layers.positional import encode_coordinates
from align_detr.modeling.query_mask import DecoderState, add, require_moving_boxes

MIN_SIDE = 1e-5  # added to sides, as in the released code, so that a side of zero gives finite numbers


class PositionRelation(nn.Module):
    """Entry of a decoder's `query_masks` that adds max(0, W E + b) to the logits of self-attention, with one row of W
    per head, where E encodes how the boxes of two queries lie (Relation-DETR, Hou et al. 2024, its position relation).

    E has `num_features` sines and cosines, of the given `temperature` and `scale`, of each of the four numbers that
    `box_relation` states. Before layer l + 1, the attending query has its box of layer l - 1 and the attended query its
    box of layer l; the first layer has no bias. All layers share W and b, and no gradient reaches the boxes. The boxes
    are the decoder's references; the released code takes the predicted boxes, which differ by the decoder's norm. The
    start of W (Xavier's here) is not in the paper.

    The encoded pairs are computed again in the backward pass: kept, those of 1,100 queries would take 310 MB per image
    and layer.
    """

    def __init__(
        self, *, num_heads: int = 8, num_features: int = 16, temperature: float = 10000.0, scale: float = 100.0
    ) -> None:
        super().__init__()
        self.num_features = check_count(num_features, "model.decoder.query_masks: num_features")
        if num_features % 2:
            raise ConfigError(
                f"num_features of PositionRelation in model.decoder.query_masks is {num_features}, but sines and "
                "cosines come in pairs: give an even number."
            )
        self.temperature = check_number(temperature, "model.decoder.query_masks: temperature", least=1)
        self.scale = check_number(scale, "model.decoder.query_masks: scale")
        self.projection = nn.Linear(4 * num_features, num_heads)

    def check_model(self, model: Any) -> None:
        """Raise ConfigError for a decoder with another number of heads, or whose boxes do not move."""
        require_moving_boxes(model, self)
        for layer in model.decoder.layers:
            heads = layer.self_attn.num_heads
            if heads != self.projection.out_features:
                raise ConfigError(
                    f"num_heads of PositionRelation in model.decoder.query_masks is {self.projection.out_features}, "
                    f"but model.decoder.layer.num_heads is {heads}: give both the same number."
                )

    def forward(self, mask: Tensor | None, state: DecoderState) -> Tensor | None:
        """Return the mask of the layer to come with the bias, (B, H, Q, Q); unchanged before the first layer.

        Raise ConfigError for queries without boxes.
        """
        if state.layer == 0:
            return mask
        boxes = state.boxes(state.layer - 1, self), state.boxes(state.layer, self)
        if not torch.is_grad_enabled():
            return add(mask, self.bias(*boxes))
        return add(mask, checkpoint(self.bias, *boxes, use_reentrant=False, preserve_rng_state=False))

    def bias(self, attending: Tensor, attended: Tensor) -> Tensor:
        """Return the bias of each pair, at least 0: boxes (B, Q, 4) and (B, S, 4), normalised cxcywh -> (B, H, Q, S)
        float32.
        """
        with torch.no_grad():
            relation = box_relation(attending, attended) * (self.scale / (2 * math.pi))
            encoded = encode_coordinates(relation, self.num_features, self.temperature)  # (B, Q, S, 4 num_features)
        return self.projection(encoded).float().relu().permute(0, 3, 1, 2)


def box_relation(a: Tensor, b: Tensor) -> Tensor:
    """Return ln(|x_a - x_b| / w_a + 1), ln(|y_a - y_b| / h_a + 1), ln(w_a / w_b), ln(h_a / h_b) of all pairs of cxcywh
    boxes, with 1e-5 added to all sides: (B, Q, 4), (B, S, 4) -> (B, Q, S, 4).
    """
    centre_a, centre_b = a[:, :, None, :2], b[:, None, :, :2]
    side_a, side_b = a[:, :, None, 2:] + MIN_SIDE, b[:, None, :, 2:] + MIN_SIDE
    return torch.cat([((centre_a - centre_b).abs() / side_a).log1p(), side_a.log() - side_b.log()], dim=-1)
