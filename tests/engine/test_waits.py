"""How often the host waits for the device in a training step, by architecture."""

from collections import Counter
from importlib import import_module
from typing import Any

import pytest
import torch
from detectron2.config import instantiate
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from align_detr.engine.precision import Precision
from align_detr.engine.trainer import Trainer
from align_detr.projects import PROJECTS
from support.shrink import small_model
from support.waits import counted_waits

# architecture -> a config of it
CONFIGS = {
    "AnchorDETR": "AnchorDETR/align_anchor_detr_r50_50ep.py",
    "ConditionalDETR": "align_detr/align_conditional_detr_r50_50ep.py",
    "DABDETR": "dab_detr/dab_detr_r50_50ep.py",
    "DABDeformableDETR": "dab_deformable_detr/dab_deformable_detr_r50_50ep.py",
    "DETR": "detr/detr_r50_500ep.py",
    "DINO": "align_detr/align_dino_r50_4scale_12ep.py",
    "DNDETR": "align_detr/align_dn_detr_r50_50ep.py",
    "DNDeformableDETR": "dn_deformable_detr/dn_deformable_detr_r50_12ep.py",
    "DeformableDETR": "align_detr/align_deformable_detr_r50_50ep.py",
    "DistilledDETR": "TSP/detr_digits_distilled.py",
    "GroupDETR": "align_detr/align_group_detr_r50_50ep.py",
    "GroupDINO": "group_detr/group_dino_r50_4scale_12ep.py",
    "HDeformableDETR": "align_detr/align_h_deformable_detr_r50_12ep.py",
    "SMCADETR": "SMCA/align_smca_r50_50ep.py",
    "TSPFCOS": "TSP/align_tsp_fcos_r50_36ep.py",
}
# detectron2's proposals, samples and box regression wait in many places, for every image: a config, and about how often
# a step of one image waits
OF_DETECTRON2 = {"FasterRCNN": ("FasterRCNN/faster_rcnn_digits.py", 60), "TSPRCNN": ("TSP/tsp_rcnn_r50_36ep.py", 50)}
# the masks of the last layer's pairs wait once more
WITH_MASKS = {
    "SegmentationDETR": "DETRSegmentation/detr_r50_panoptic_25ep.py",
    "SegmentationDeformableDETR": "DETRSegmentation/digits_panoptic.py",
}
EXPECTED = Counter(cpu=2)  # the matching's costs, and all losses with the norm of the gradient
MOST = 3


def images(counts: list[int]) -> list[dict[str, Any]]:
    """Return a noise image with so many objects for each count, in the mapper's form."""
    random = torch.Generator().manual_seed(0)
    batch = []
    for number, count in enumerate(counts):
        height, width = 64, 48 + 16 * number
        corners = torch.rand(count, 2, 2, generator=random).sort(dim=1).values * torch.tensor([width - 8, height - 8])
        corners[:, 1] += 4
        classes = torch.randint(3, (count,), generator=random)
        instances = Instances((height, width), gt_boxes=Boxes(corners.flatten(1)), gt_classes=classes)
        instances.gt_masks = BitMasks(torch.ones(count, height, width, dtype=torch.bool))
        pixels = torch.randint(256, (3, height, width), dtype=torch.uint8, generator=random)
        batch.append({"image": pixels, "height": height, "width": width, "instances": instances})
    return batch


def waits_of_step(model: nn.Module, counts: list[int]) -> Counter[str]:
    """Return the waits of a training step, from the images to the optimizer, by operator."""
    trainer = Trainer(
        model=model,
        data_loader=[images(counts)],
        optimizer=torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.0),
        precision=Precision(),
    )
    with EventStorage() as trainer.storage, counted_waits(model) as waits:
        trainer.run_step()
    return waits.by_operator


def detector(config: str, **sizes: int) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = instantiate(small_model(config, **sizes)).train()
    return model


@pytest.mark.parametrize("name", CONFIGS)
def test_a_step_waits_twice_for_any_images_and_objects(name: str) -> None:
    model = detector(CONFIGS[name])
    assert type(model).__name__ == name
    found = [waits_of_step(model, counts) for counts in ([1], [9, 0, 2])]
    assert found == [EXPECTED] * 2
    assert found[0].total() <= MOST


@pytest.mark.parametrize("name", WITH_MASKS)
def test_masks_wait_once_more(name: str) -> None:
    model = detector(WITH_MASKS[name])
    assert type(model).__name__ == name
    assert [waits_of_step(model, counts).total() for counts in ([1], [9, 0, 2])] == [MOST] * 2


@pytest.mark.parametrize("layers", [1, 3])
def test_a_step_waits_twice_for_any_layers(layers: int) -> None:
    assert waits_of_step(detector("detr/detr_r50_500ep.py", num_layers=layers), [2]) == EXPECTED


@pytest.mark.parametrize("name", OF_DETECTRON2)
def test_an_rcnn_waits_often(name: str) -> None:
    """Neither once per step nor without bounds."""
    config, most = OF_DETECTRON2[name]
    found = waits_of_step(detector(config), [1]).total()
    assert MOST < found <= most


def test_every_architecture_is_counted() -> None:
    for project in PROJECTS:
        import_module(f"align_detr.projects.{project}")
    ours = {name for name, kind in META_ARCH_REGISTRY if kind.__module__.startswith("align_detr.")}
    assert ours == CONFIGS.keys() | WITH_MASKS.keys() | OF_DETECTRON2.keys()


@pytest.mark.parametrize(
    "wait",
    [
        lambda value: value.item(),
        lambda value: bool(value > 0),
        lambda value: value.reshape(1).nonzero(),
        lambda value: value.reshape(1)[value.reshape(1) > 0],
        lambda value: value.cpu(),
    ],
)
def test_waits_are_seen(wait: Any) -> None:
    """Each of a value that comes from a weight, none of one that was never on the device."""
    layer = nn.Linear(1, 1)
    with counted_waits(layer) as waits:
        wait(torch.ones(()))
        assert waits.by_operator.total() == 0
        wait(layer(torch.ones(1, 1)).sum().detach())
        assert waits.by_operator.total() >= 1
        sent = torch.ones(()).to(torch.device("cpu"))
        before = waits.by_operator.total()
        wait(sent)
        assert waits.by_operator.total() > before
