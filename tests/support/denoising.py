"""Sources of denoising queries of any kind, what they are given, and a small detector with them."""

import torch

from align_detr.modeling.queries import AnchorQueries, DenoisingSource
from align_detr.structures import Memory, Targets

DIM, CLASSES = 16, 3


def source_of(kind: type, **options: object) -> DenoisingSource:
    """Four learned boxes behind denoising queries of this kind."""
    torch.manual_seed(0)
    main = AnchorQueries(num_queries=4, embed_dim=DIM)
    return kind(main=main, num_classes=CLASSES, embed_dim=DIM, **options)


def some_targets(*counts: int) -> Targets:
    """Random objects that lie inside their image."""
    longest = max([1, *counts])
    generator = torch.Generator().manual_seed(1)
    return Targets(
        labels=torch.randint(CLASSES, (len(counts), longest), generator=generator),
        boxes=torch.rand(len(counts), longest, 4, generator=generator) * 0.2 + torch.tensor([0.4, 0.4, 0.3, 0.3]),
        counts=list(counts),
    )


def memory_of(images: int) -> Memory:
    """One token an image, which says nothing."""
    tokens = torch.zeros(images, 1, DIM)
    return Memory(tokens=tokens, position=tokens, padding=None, shapes=[(1, 1)], valid_sizes=[[(1, 1)] * images])
