"""Non-maximum suppression whose result has the shape of its input, for export."""

import torch
from torch import Tensor
from torchvision.ops import nms


def kept_by_nms(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Return which boxes NMS within the groups of each image keeps, (B, N) bool: boxes (B, N, 4), scores and groups
    (B, N). Of boxes that must not remove others, the scores are the lowest.

    One NMS for the whole batch, with each group of each image shifted to a place of its own.
    """
    image = torch.arange(boxes.shape[0], device=boxes.device)[:, None]
    place = groups + (groups.max() + 1) * image
    shifted = boxes + (place * (boxes.max() - boxes.min() + 1))[..., None]
    kept = nms(shifted.flatten(0, 1), scores.flatten(), threshold)
    return torch.zeros_like(scores).flatten().scatter(0, kept, 1.0).view(scores.shape) > 0
