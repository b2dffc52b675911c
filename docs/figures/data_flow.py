"""The parts of a detector and what travels between them, read off a model while it trains and predicts one image."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from align_detr.modeling import DETR
from align_detr.structures import QueryPart, Targets

IMAGES, OBJECTS, LOSSES, DETECTIONS = "images", "objects", "losses", "detections"
SKIPPED = (nn.Identity, nn.LayerNorm, nn.Dropout, nn.ReLU)
LISTS = (nn.ModuleList, nn.Sequential)


@dataclass(frozen=True)
class Part:
    """A part of a detector: its role (the attribute's name), its class, its parameters, its own parts (one a line)."""

    role: str
    kind: str
    parameters: int
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Arrow:
    """A value that one part makes and another takes; either may also be one of the four ends. `training` and
    `evaluation` say when it travels.
    """

    source: str
    target: str
    what: str
    training: bool
    evaluation: bool


def parts_of(model: nn.Module) -> list[Part]:
    """Return the parts of a model, in the order of its constructor."""
    return [
        Part(role, type(part).__name__, sum(p.numel() for p in part.parameters()), tuple(lines_of(part)))
        for role, part in model.named_children()
    ]


def lines_of(module: nn.Module, depth: int = 2) -> list[str]:
    """Return a line per module inside, "name: Class", those of the library's own classes with theirs, indented."""
    lines = []
    for name, child in module.named_children():
        if isinstance(child, SKIPPED) or name.endswith("norm") or (isinstance(child, LISTS) and not len(child)):
            continue
        lines.append(f"{name}: {_described(child)}")
        inner = child[0] if isinstance(child, nn.ModuleList) and len(_kinds(child)) == 1 else child
        if depth > 1 and type(inner).__module__.startswith("align_detr"):
            lines += [f"    {line}" for line in lines_of(inner, depth - 1)]
    copies = getattr(module, "copies", None)
    if copies:
        lines.append("copies: " + ", ".join(f"{name} {k}" for name, k in copies.items()))
    return lines


def _described(module: nn.Module) -> str:
    """Return a module's class, or those of a list with their number or their weights in the sum."""
    if not isinstance(module, LISTS):
        return type(module).__name__
    if all(hasattr(child, "weight") and isinstance(child.weight, float) for child in module):
        return " + ".join(f"{child.weight:g} {type(child).__name__}" for child in module)
    kinds = _kinds(module)
    return f"{len(module)} x {kinds[0]}" if len(kinds) == 1 else ", ".join(kinds)


def _kinds(modules: nn.Module) -> list[str]:
    return list(dict.fromkeys(type(child).__name__ for child in modules.children()))


def arrows_of(model: DETR, size: int = 128) -> list[Arrow]:
    """Return what travels between the parts of a model in training and in evaluation, of an image of `size` pixels a
    side with two objects. Values that a part makes of nothing but other parts' values are its own.
    """
    instances = Instances((size, size), gt_classes=torch.tensor([0, 1]))
    instances.gt_boxes = Boxes(torch.tensor([[0.1, 0.1, 0.5, 0.6], [0.4, 0.3, 0.9, 0.8]]) * size)
    inputs = [{"image": torch.full((3, size, size), 128, dtype=torch.uint8), "instances": instances}]
    flows = {}
    for training in (True, False):
        with torch.no_grad(), Trace(model) as trace:
            model.train(training)(inputs)
        flows[training] = {**trace.arrows, (trace.last, LOSSES if training else DETECTIONS): ""}
    return [
        Arrow(source, target, what, (source, target) in flows[True], (source, target) in flows[False])
        for (source, target), what in {**flows[False], **flows[True]}.items()
    ]


@dataclass
class Trace:
    """The arrows of one forward pass, {(source, target): what}: hooks follow floating-point tensors by identity from
    the part that has made them to those that are called with them. `last` is the part that was called last.
    """

    model: nn.Module
    arrows: dict[tuple[str, str], str] = field(default_factory=dict)
    last: str = ""

    def __enter__(self) -> "Trace":
        """Hook the model's parts."""
        self._maker: dict[int, tuple[str, int]] = {}  # id of a tensor -> the part that made it, and when
        self._kept: list[Any] = []  # an id is one tensor's as long as that lives
        self._calls: list[tuple[str, int]] = []
        self._time = 0
        self._handles = []
        for role, part in self.model.named_children():
            self._handles += [
                part.register_forward_pre_hook(self._before(role), with_kwargs=True),
                part.register_forward_hook(self._after, with_kwargs=True),
            ]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _before(self, role: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            outside = self._calls[-1][0] if self._calls else IMAGES
            for value in (*args, *kwargs.values()):
                if isinstance(value, Targets):
                    self.arrows[OBJECTS, role] = "Targets"
                    continue
                for name, part in _named(value):
                    for source in {self._maker.get(id(x), (outside, 0))[0] for x in tensors_in(part)}:
                        self._add(source, role, name)
            self._time += 1
            self._calls.append((role, self._time))

        return hook

    def _after(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        role, start = self._calls.pop()
        self._time += 1
        for x in tensors_in(output):
            if self._maker.get(id(x), ("", 0))[1] < start:  # not made by a part within this call
                self._maker[id(x)] = (role, self._time)
                self._kept.append(x)
        self.last = role if not self._calls else self.last

    def _add(self, source: str, target: str, name: str) -> None:
        names = self.arrows.get((source, target), "").split(", ")
        self.arrows[source, target] = ", ".join(dict.fromkeys(filter(None, [*names, name])))


def _named(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what an argument is called in the figure, and its value, entry by entry where it has names."""
    if isinstance(value, Mapping):
        for name, entry in value.items():
            yield f"{name}", entry
    elif isinstance(value, Sequence) and any(isinstance(x, QueryPart) for x in value):
        for part in value:
            yield f"{part.name}", part
    elif dataclasses.is_dataclass(value):
        yield type(value).__name__, value
    elif not isinstance(value, nn.Module):
        yield "", value


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the floating-point tensors in a value, through mappings, sequences and dataclasses."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from tensors_in(entry)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from tensors_in(entry)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for each in dataclasses.fields(value):
            yield from tensors_in(getattr(value, each.name))
