"""DN-DETR's denoising queries before any query source that has boxes: five groups, labels 0.2, boxes 0.4."""

from typing import Any

from detectron2.config import LazyCall as L

from align_detr.modeling import DenoisingQueries


def denoised(queries: Any) -> Any:
    """Return the node of denoising queries before those of the node `queries`."""
    return L(DenoisingQueries)(
        main=queries,
        num_classes="${..head.num_classes}",
        embed_dim=256,
        groups=5,
        label_noise=0.2,
        box_noise=0.4,
        indicator=True,
        max_queries=500,  # per image; beyond 100 objects there are fewer groups
    )
