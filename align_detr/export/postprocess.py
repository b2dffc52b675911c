"""Post-processing as tensors of fixed shapes, without `Instances`."""

from torch import Tensor, nn

from align_detr.errors import ConfigError
from align_detr.layers.boxes import cxcywh_to_xyxy
from align_detr.modeling.losses.iou_branch import FusedPostprocess
from align_detr.modeling.postprocess import SoftmaxPostprocess, TopKPostprocess, class_probabilities
from align_detr.structures import Predictions

Found = tuple[Tensor, Tensor, Tensor]


def best_of(postprocess: nn.Module, predictions: Predictions, sizes: Tensor) -> Found:
    """Return what `postprocess` makes of the last row: boxes (B, N, 4) xyxy in pixels, clipped, scores (B, N)
    descending, labels (B, N) int64.

    sizes (B, 2): height and width of each image. Queries that are padding have score 0 and a box of zeros. Raise
    ConfigError for post-processing that is not the library's.
    """
    if isinstance(postprocess, FusedPostprocess):
        return best_of(postprocess.postprocess, postprocess.fused(predictions), sizes)
    probability = class_probabilities(predictions)  # (B, Q, K)
    if predictions.valid is not None:
        probability = probability.masked_fill(~predictions.valid[..., None], -1.0)
    classes = probability.shape[-1]
    if isinstance(postprocess, SoftmaxPostprocess):
        scores, labels = probability.max(-1)
        scores, query = scores.topk(scores.shape[1], dim=1)
        labels = labels.gather(1, query)
    elif isinstance(postprocess, TopKPostprocess):
        flat = probability.flatten(1)  # (B, Q * K): entry query * K + class
        scores, index = flat.topk(min(postprocess.num_detections, flat.shape[1]), dim=1)
        query, labels = index // classes, index % classes
    else:
        raise ConfigError(
            f"model.postprocess is {type(postprocess).__name__}, which has no form for export: set it to "
            "TopKPostprocess or SoftmaxPostprocess."
        )
    boxes = predictions.boxes[-1].float().gather(1, query[..., None].expand(-1, -1, 4))
    limits = sizes.flip(1).repeat(1, 2)[:, None].float()  # (B, 1, 4): width, height, width, height
    boxes = (cxcywh_to_xyxy(boxes) * limits).clamp(min=0.0).minimum(limits)
    if predictions.valid is not None:
        boxes = boxes * (scores >= 0)[..., None].float()
        scores = scores.clamp(min=0.0)
    return boxes, scores, labels
