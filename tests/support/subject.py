"""A shrunk detector of the model zoo and what it does in a few passes, each run once and kept."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from tempfile import TemporaryDirectory

import torch
from detectron2.config import LazyConfig, get_cfg, instantiate
from detectron2.modeling import build_model
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig
from torch import Tensor, nn

from align_detr.config import add_align_detr_config
from support.inputs import image_input
from support.shrink import as_json, config, small_model

SEED = 6  # a draw of weights with which every detector finds something in every image
SIZES = [(96, 70), (45, 61), (96, 70)]  # two alike, tall and wide, no side but one a multiple of a stride
_SUBJECTS: dict[str, "Subject"] = {}


@cache
def subject(name: str) -> "Subject":
    """Return the subject of a config; configs whose shrunk models are equal share one."""
    model = small_model(name)
    return _SUBJECTS.setdefault(as_json(model), Subject(name, model))


@dataclass
class Step:
    """What a training step leaves: its losses, the trained parameters without a gradient and with one that is not
    finite, and the inputs and entries of the state dict that it changed.
    """

    losses: dict[str, Tensor]
    changed: list[str]
    without_gradient: list[str] = field(default_factory=list)
    not_finite: list[str] = field(default_factory=list)


class Subject:
    """The detector of a shrunk model's config, with random weights of which none is zero, so that nothing hides."""

    def __init__(self, name: str, node: DictConfig) -> None:
        self.name = name
        self.node = node

    @cached_property
    def model(self) -> nn.Module:
        """The detector; whoever changes it puts it back."""
        torch.manual_seed(SEED)
        model = instantiate(self.node)
        randomise(model)
        return model

    @cached_property
    def some_objects(self) -> Step:
        """A forward pass of training with objects in both images."""
        return self.step(3, 1, backward=False)

    @cached_property
    def some_objects_again(self) -> Step:
        """The same once more."""
        return self.step(3, 1, backward=False)

    @cached_property
    def one_empty(self) -> Step:
        """A step in which one image has no object and the other more objects than there are queries."""
        return self.step(40, 0)

    @cached_property
    def all_empty(self) -> Step:
        """A step in which no image has an object."""
        return self.step(0, 0)

    @cached_property
    def bfloat16(self) -> Step:
        """The step with one empty image, under bfloat16 autocast."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.step(40, 0)

    @property
    def steps(self) -> list[Step]:
        """The steps in float32."""
        return [self.some_objects, self.one_empty, self.all_empty]

    @cached_property
    def batch(self) -> list[Instances]:
        """Detections in a batch of several sizes."""
        return self.detect(images(1, 0, 2))

    @cached_property
    def reversed_batch(self) -> list[Instances]:
        """Detections in the batch that begins with its last image, in the order of `batch`."""
        return self.detect(images(1, 0, 2)[::-1])[::-1]

    @cached_property
    def alone(self) -> list[Instances]:
        """Detections in the same images one by one."""
        return [self.detect([image])[0] for image in images(1, 0, 2)]

    @cached_property
    def enlarged(self) -> Instances:
        """Detections in the first image, where an output of twice the height and three times the width is wanted."""
        (image, *_) = images(1, 0, 2)
        return self.detect([{**image, "height": 2 * image["height"], "width": 3 * image["width"]}])[0]

    @cached_property
    def changed_by_evaluation(self) -> list[str]:
        """Entries of the state dict and images that evaluation changed."""
        batch = images(1, 0)
        with unchanged(self.model, batch) as changed:
            self.detect(batch)
        return changed

    @cached_property
    def reloaded(self) -> Instances:
        """Detections in the first image of another detector that was given this one's state dict."""
        torch.manual_seed(0)
        other = instantiate(self.node)
        other.load_state_dict(self.model.state_dict(), strict=True)
        return self.detect(images(1), other)[0]

    @cached_property
    def in_half_precision(self) -> dict[torch.dtype, Instances]:
        """Detections in the first image with weights of float16 and of bfloat16."""
        return {
            dtype: self.detect(images(1), copy.deepcopy(self.model).to(dtype))[0]
            for dtype in (torch.float16, torch.bfloat16)
        }

    @cached_property
    def from_yacs(self) -> nn.Module:
        """The detector that detectron2 builds from the two keys, with the file that a run saves."""
        saved = config(self.name).copy()
        saved.model = self.node
        cfg = get_cfg()
        add_align_detr_config(cfg)
        cfg.MODEL.DEVICE, cfg.MODEL.META_ARCHITECTURE = "cpu", saved.model["_target_"].__name__
        with TemporaryDirectory() as folder:
            cfg.MODEL.ALIGN_DETR.CONFIG = f"{folder}/config.yaml"
            LazyConfig.save(saved, cfg.MODEL.ALIGN_DETR.CONFIG)
            return build_model(cfg)

    def detect(self, batch: Sequence[dict], model: nn.Module | None = None) -> list[Instances]:
        """Return the detections in a batch, those of `model` where one is given."""
        model = self.model if model is None else model
        with torch.no_grad():
            return [x["instances"] for x in model.eval()(batch)]

    def step(self, *counts: int, backward: bool = True) -> Step:
        """Train on images with so many objects, from one seed; the detector is as before, without gradients."""
        batch = images(*counts)
        with unchanged(self.model, batch) as changed:
            torch.manual_seed(SEED)
            with EventStorage():  # which detectron2's proposal generators report to
                losses = self.model.train()(batch)
            if backward:
                sum(losses.values()).backward()
        gradients = {name: p.grad for name, p in self.model.named_parameters() if p.requires_grad and backward}
        self.model.zero_grad(set_to_none=True)
        return Step(
            losses={name: value.detach() for name, value in losses.items()},
            changed=changed,
            without_gradient=[name for name, grad in gradients.items() if grad is None],
            not_finite=[name for name, grad in gradients.items() if grad is not None and not grad.isfinite().all()],
        )


def images(*counts: int) -> list[dict]:
    """Return noise images of SIZES with so many objects of the classes 0 to 2, the same ones in every call."""
    torch.manual_seed(SEED)
    return [image_input(*size, n) for size, n in zip(SIZES, counts, strict=False)]


def randomise(model: nn.Module) -> None:
    """Add noise to the trained tensors whose numbers are equal or nearly so; draw depth-wise convolutions anew, since
    PyTorch starts them so small that MobileNet's maps fade behind its frozen norms.
    """
    for name, parameter in model.named_parameters():
        inputs = parameter[0].numel() if parameter.dim() > 1 else 25
        if parameter.dim() == 4 and parameter.shape[1] == 1:
            nn.init.normal_(parameter, std=(2 / inputs) ** 0.5)
        elif parameter.requires_grad and parameter.std(unbiased=False) < 0.02 and not name.startswith("backbone."):
            parameter.data += torch.randn_like(parameter) / inputs**0.5


@contextmanager
def unchanged(model: nn.Module, batch: list[dict]) -> Iterator[list[str]]:
    """Yield a list that holds afterwards what the block changed: entries of the state dict, which get their old values
    back, and images and their annotations.
    """
    changed: list[str] = []
    state = {name: value.clone() for name, value in model.state_dict().items()}
    inputs = copy.deepcopy(batch)
    yield changed
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if not torch.equal(value, state[name]):
                changed.append(name)
                value.copy_(state[name])
    for i, (old, new) in enumerate(zip(inputs, batch, strict=True)):
        assert old.keys() == new.keys()
        own, others = new["instances"].get_fields(), old["instances"].get_fields()
        equal = own.keys() == others.keys() and torch.equal(old["image"], new["image"])
        equal = equal and torch.equal(own["gt_boxes"].tensor, others["gt_boxes"].tensor)
        if not (equal and torch.equal(own["gt_classes"], others["gt_classes"])):
            changed.append(f"image {i}")
