"""What depends on sizes alone, kept per shape: positions, padding, references, anchors."""

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard, TypeVar, cast

import torch
from torch import Tensor, nn

from align_detr.modeling.neck import MultiScaleNeck, SingleScaleNeck
from align_detr.structures import Memory

Value = TypeVar("Value")
KEPT_SHAPES = 16  # of DINO at 800x1333, 25 MB each


@dataclass
class KeptMemory(Memory):
    """Tokens, with what was computed before for the same sizes.

    `layout` is a Memory without tokens and of one image where all are of one size, and `derived` what `keep` computed
    of it.
    """

    layout: Memory
    derived: dict[Callable[..., Any], Any] = field(default_factory=dict)

    @property
    def valid_ratios(self) -> Tensor:
        """Part of each level that each image covers, as (width, height) in (0, 1]: (B, L, 2) float32."""
        return keep(self, _valid_ratios)


def keep(memory: Memory, compute: Callable[[Memory], Value]) -> Value:
    """Return `compute(memory)`, tensors (B, ...) that depend on the sizes alone, computed once per shape."""
    if not isinstance(memory, KeptMemory):
        return compute(memory)
    if compute not in memory.derived:
        memory.derived[compute] = compute(memory.layout)
    value: Any = memory.derived[compute]
    images = len(memory.tokens)
    expanded: Any = tuple(_expanded(x, images) for x in value) if isinstance(value, tuple) else _expanded(value, images)
    return expanded


class Kept(OrderedDict[Hashable, KeptMemory]):
    """The memories of the shapes that were last used, at most `KEPT_SHAPES`."""

    def find(self, key: Hashable) -> KeptMemory | None:
        """Return the memory of a shape, or None."""
        if key in self:
            self.move_to_end(key)
        return self.get(key)

    def __reduce__(self) -> tuple[type["Kept"], tuple[()]]:
        """Be empty in a copy, and in a file."""
        return Kept, ()

    def add(self, key: Hashable, memory: KeptMemory) -> None:
        """Keep the memory of a shape; forget the one that was not used for longest."""
        self[key] = memory
        if len(self) > KEPT_SHAPES:
            self.popitem(last=False)


class KeptNeck(nn.Module):
    """A neck that computes tokens, and positions and padding at the first image of a shape only."""

    def __init__(self, neck: SingleScaleNeck | MultiScaleNeck) -> None:
        super().__init__()
        self.neck = neck
        self.kept = Kept()

    def forward(
        self, features: Mapping[str, Tensor], image_sizes: Sequence[tuple[int, int]], padded_size: tuple[int, int]
    ) -> Memory:
        """Make tokens as the neck does."""
        of_one_size = len(set(image_sizes)) == 1
        sizes = tuple(image_sizes[:1] if of_one_size else image_sizes)
        key = (sizes, padded_size, *(x.shape[-2:] for x in features.values()))
        kept = self.kept.find(key)
        if kept is None:
            whole = self.neck(features, image_sizes, padded_size)
            self.kept.add(key, _kept(whole, 1 if of_one_size else len(image_sizes)))
            kept, tokens = self.kept[key], whole.tokens
        else:
            tokens = self._tokens(features)
        return _with_tokens(kept, tokens)

    def _tokens(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return the tokens alone, (B, S, C)."""
        if isinstance(self.neck, MultiScaleNeck):
            maps = self.neck._project(features)
        else:
            maps = [self.neck.projection(features[self.neck.in_feature])]
        tokens = [x.flatten(2).transpose(1, 2) for x in maps]
        return tokens[0] if len(tokens) == 1 else torch.cat(tokens, dim=1)


def can_keep(neck: nn.Module) -> TypeGuard[SingleScaleNeck | MultiScaleNeck]:
    """Say whether a neck's positions depend on sizes alone, as those of the library's own necks do."""
    return type(neck) in (SingleScaleNeck, MultiScaleNeck)


def _kept(memory: Memory, images: int) -> KeptMemory:
    """Return the first images of a memory without tokens."""
    layout = Memory(
        tokens=memory.tokens.new_empty(images, 0),
        position=memory.position[:images].contiguous(),
        padding=None if memory.padding is None else memory.padding[:images],
        shapes=memory.shapes,
        valid_sizes=[sizes[:images] for sizes in memory.valid_sizes],
    )
    return KeptMemory(**{x.name: getattr(layout, x.name) for x in dataclasses.fields(layout)}, layout=layout)


def _with_tokens(kept: KeptMemory, tokens: Tensor) -> Memory:
    """Return the memory of tokens (B, S, C), one layout for all images where they are of one size."""
    images, repeats = len(tokens), len(tokens) // len(kept.position)
    return dataclasses.replace(
        kept,
        tokens=tokens,
        position=_expanded(kept.position, images),
        padding=None if kept.padding is None else _expanded(kept.padding, images),
        valid_sizes=[[*cast(list[tuple[int, int]], sizes)] * repeats for sizes in kept.valid_sizes],
    )


def _expanded(x: Tensor, images: int) -> Tensor:
    return x if len(x) == images else x.expand(images, *x.shape[1:])


def _valid_ratios(memory: Memory) -> Tensor:
    return memory.valid_ratios
