"""The parts of a detector and what travels between them, read off a model while it trains and predicts one image."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

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
    if isinstance(copies, Mapping) and copies:  # of a matcher
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
    side with two objects: an arrow for each tensor of another part that a part computes with or passes on.
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
class Call:
    """A call of a part: its role, when it began, and of each tensor that it was given the maker and the name."""

    role: str
    start: int
    given: dict[int, tuple[str, str]] = field(default_factory=dict)


class Trace(TorchFunctionMode):
    """The arrows of one forward pass, {(source, target): what}. Hooks on the parts say which part makes and is given
    which floating-point tensor, by identity; every function of PyTorch says which of them are used. `last` is the part
    that was called last.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.arrows: dict[tuple[str, str], str] = {}
        self.last = ""
        self._maker: dict[int, tuple[str, int]] = {}  # id of a tensor -> the part that made it, and when
        self._kept: list[Tensor] = []  # an id is one tensor's as long as that lives
        self._calls: list[Call] = []
        self._time = 0
        self._handles = [
            handle
            for role, part in model.named_children()
            for handle in (
                part.register_forward_pre_hook(self._before(role), with_kwargs=True),
                part.register_forward_hook(self._after),
            )
        ]

    def __exit__(self, *error: Any) -> None:
        for handle in self._handles:
            handle.remove()
        super().__exit__(*error)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function; whatever it does but reading an attribute, such as a shape, uses its tensors."""
        if self._calls and getattr(function, "__name__", "") != "__get__":
            for x in tensors_in([*args, *(kwargs or {}).values()]):
                self._use(self._calls[-1], x)
        return function(*args, **(kwargs or {}))

    def _before(self, role: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            caller = self._calls[-1].role if self._calls else IMAGES
            self._time += 1
            call = Call(role, self._time)
            for value in (*args, *kwargs.values()):
                outside = OBJECTS if isinstance(value, Targets) else caller
                for name, part in _named(value):
                    for x in tensors_in(part):
                        call.given[id(x)] = (self._maker.get(id(x), (outside, 0))[0], name)
                        self._kept.append(x)
            self._calls.append(call)

        return hook

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        call = self._calls.pop()
        self._time += 1
        for x in tensors_in(output):
            if self._maker.get(id(x), ("", 0))[1] < call.start:  # not made by a part within this call
                self._use(call, x)  # passed on
                self._maker[id(x)] = (call.role, self._time)
                self._kept.append(x)
        self.last = call.role if not self._calls else self.last

    def _use(self, call: Call, x: Tensor) -> None:
        """Add the arrow to a call of a tensor that it was given, with the name that it was given by."""
        if id(x) in call.given:
            source, name = call.given[id(x)]
            names = self.arrows.get((source, call.role), "").split(", ")
            self.arrows[source, call.role] = ", ".join(dict.fromkeys(filter(None, [*names, name])))


def _named(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what an argument is called in the figure, and its value, entry by entry where it has names."""
    if isinstance(value, Mapping):
        yield from ((str(name), entry) for name, entry in value.items())
    elif isinstance(value, Sequence) and any(isinstance(x, QueryPart) for x in value):
        yield from ((part.name, part) for part in value)
    elif dataclasses.is_dataclass(value):
        yield type(value).__name__, value
    elif not isinstance(value, nn.Module):
        yield "", value


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the floating-point tensors in a value, through mappings, sequences and dataclasses."""
    if isinstance(value, Tensor):
        if value.dtype.is_floating_point:
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
