"""Conditional-, DAB- and Group-DETR: what they see of padding."""

import pytest
import torch
from torch.testing import assert_close

from support.detectors import DIM, SINGLE_SCALE, single_scale_detector
from support.single_scale import noise_memory


@pytest.mark.parametrize("kind", SINGLE_SCALE)
def test_padding_is_not_seen(kind: str) -> None:
    """Other contents of padded tokens change nothing; without the mask in cross-attention they do."""
    memory = noise_memory(DIM)
    other = memory.with_tokens(torch.where(memory.padding[..., None], 3.0, memory.tokens))
    for mask_padding in (True, False):
        model = single_scale_detector(kind, mask_padding=mask_padding).eval()
        first, second = (model.predict(model.encoder(m))["main"].logits for m in (memory, other))
        assert_close(first[:, 0], second[:, 0])
        assert torch.allclose(first[:, 1], second[:, 1], atol=1e-5) == mask_padding
