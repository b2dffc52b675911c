"""What every config of the model zoo promises, projects included: a new one is tested as soon as its file exists.

Each config's model is shrunk (`support.shrink`) and given random weights. Every promise has every config's name as a
test; configs whose shrunk models are equal, such as those of other schedules or of a deeper ResNet, share one detector
(`support.subject`), whose passes are run once.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch.testing import assert_close

from align_detr import model_zoo
from align_detr.errors import DatasetError
from support.shrink import as_json, config
from support.subject import SIZES, images, subject, unchanged

every_config = pytest.mark.parametrize("name", model_zoo.names())
BATCH_STATISTICS = (".running_mean", ".running_var", ".num_batches_tracked")


@every_config
def test_losses_are_finite_numbers(name: str) -> None:
    """With objects, with none in one image and with none at all."""
    for step in subject(name).steps:
        for loss, value in step.losses.items():
            assert value.dim() == 0 and value.dtype == torch.float32 and torch.isfinite(value) and value >= 0, loss


@every_config
def test_boxes_of_no_object_cost_nothing(name: str) -> None:
    """Where no image has an object there is no box to be wrong about; otherwise there is."""
    losses, others = subject(name).all_empty.losses, subject(name).some_objects.losses
    boxes = [loss for loss in losses if any(word in loss for word in ("bbox", "giou", "box_", "_loc"))]
    assert all(losses[loss] == 0 for loss in boxes) and sum(others[loss] for loss in boxes) > 0


@every_config
def test_loss_names_do_not_depend_on_the_data(name: str) -> None:
    some, one_empty, all_empty = (list(step.losses) for step in subject(name).steps)
    assert some == one_empty == all_empty


@every_config
def test_every_parameter_gets_a_gradient(name: str) -> None:
    """A gradient of zero is ordinary (self-attention of queries that are all zero); a missing one breaks training on
    several GPUs.
    """
    for step in (subject(name).one_empty, subject(name).all_empty):
        assert not step.without_gradient and not step.not_finite


@every_config
def test_one_seed_gives_one_result(name: str) -> None:
    again = subject(name).some_objects_again.losses
    assert all(torch.equal(value, again[loss]) for loss, value in subject(name).some_objects.losses.items())


@every_config
def test_training_changes_only_batch_statistics(name: str) -> None:
    """Neither the weights nor the images and their annotations."""
    for step in subject(name).steps:
        assert [x for x in step.changed if not x.endswith(BATCH_STATISTICS)] == []


@every_config
def test_bfloat16_trains(name: str) -> None:
    """Under autocast losses are float32 and gradients finite."""
    step = subject(name).bfloat16
    assert step.losses.keys() == subject(name).one_empty.losses.keys()
    for loss, value in step.losses.items():
        assert value.dtype == torch.float32 and torch.isfinite(value), loss
    assert not step.without_gradient and not step.not_finite


@every_config
def test_weights_of_half_precision_detect(name: str) -> None:
    """`model.half()` and `model.to(torch.bfloat16)`: scores and boxes are float32, and the best scores nearly those of
    float32.
    """
    expected = subject(name).alone[0]
    for dtype, found in subject(name).in_half_precision.items():
        boxes = found.pred_boxes.tensor
        assert found.scores.dtype == boxes.dtype == torch.float32
        assert torch.isfinite(boxes).all() and (boxes[:, :2] < boxes[:, 2:]).all()
        assert_close(found.scores[:3], expected.scores[:3], atol=0.01 if dtype == torch.float16 else 0.05, rtol=0)


@every_config
def test_detections_are_inside_of_the_image(name: str) -> None:
    """Boxes with an area, classes that exist, scores from 0 to 1 in descending order."""
    classes = subject(name).model.num_classes
    for found, (height, width) in zip(subject(name).batch, SIZES, strict=True):
        boxes = found.pred_boxes.tensor
        assert found.image_size == (height, width)
        assert torch.isfinite(boxes).all() and (boxes >= 0).all()
        assert (boxes[:, 2] <= width).all() and (boxes[:, 3] <= height).all()
        assert (boxes[:, :2] < boxes[:, 2:]).all()
        assert ((found.pred_classes >= 0) & (found.pred_classes < classes)).all()
        assert ((found.scores >= 0) & (found.scores <= 1)).all()


def assert_same(found: list[Instances], expected: list[Instances]) -> None:
    """Each detection has one like it: of its class, less than 2e-5 away in score and 1e-3 pixels in a box's sides."""
    assert len(found) == len(expected) and all(len(x) > 0 for x in found)
    for a, b in zip(found, expected, strict=True):
        assert a.image_size == b.image_size and len(a) == len(b)
        assert_close(a.scores.sort().values, b.scores.sort().values, atol=2e-5, rtol=0)
        alike = a.pred_classes[:, None] == b.pred_classes
        alike &= (a.scores[:, None] - b.scores).abs() < 2e-5
        alike &= (a.pred_boxes.tensor[:, None] - b.pred_boxes.tensor).abs().amax(-1) < 1e-3
        assert alike.any(0).all() and alike.any(1).all()


@every_config
def test_an_image_is_the_same_in_any_batch(name: str) -> None:
    """Evaluation gives an image the same detections alone as among images of other sizes."""
    assert_same(subject(name).batch, subject(name).alone)


@every_config
def test_the_order_of_the_batch_does_not_matter(name: str) -> None:
    assert_same(subject(name).reversed_batch, subject(name).batch)


@every_config
def test_detections_are_in_the_output_size(name: str) -> None:
    """An output of twice the height and three times the width has boxes twice as high and three times as wide."""
    found, expected = subject(name).enlarged, subject(name).alone[0]
    assert found.image_size == (2 * SIZES[0][0], 3 * SIZES[0][1])
    assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor * torch.tensor([3.0, 2.0, 3.0, 2.0]))


@every_config
def test_evaluation_changes_nothing(name: str) -> None:
    """Neither the state dict nor the images and their annotations."""
    assert subject(name).changed_by_evaluation == []


@every_config
def test_an_empty_batch_has_no_detections(name: str) -> None:
    assert subject(name).model.eval()([]) == []


@every_config
def test_what_cannot_be_trained_on_is_named(name: str) -> None:
    """No image at all, an object of a class that is not there, an image without annotations."""
    model = subject(name).model
    batch = [{**image, "file_name": f"{i}.jpg"} for i, image in enumerate(images(2, 1))]
    with EventStorage(), pytest.raises(DatasetError, match="no image"):
        model.train()([])
    batch[1]["instances"].gt_classes[:] = model.num_classes
    with EventStorage(), pytest.raises(DatasetError, match=rf"1\.jpg has an object of class {model.num_classes}"):
        model.train()(batch)
    del batch[1]["instances"]
    with EventStorage(), pytest.raises(DatasetError, match=r"1\.jpg has no 'instances'"):
        model.train()(batch)


@every_config
def test_state_dict_goes_into_another_detector(name: str) -> None:
    """Which then has the same detections to the last bit."""
    found, expected = subject(name).reloaded, subject(name).alone[0]
    assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(found.scores, expected.scores) and torch.equal(found.pred_classes, expected.pred_classes)


_LOADED: dict[str, str] = {}  # what a node becomes when it is saved and loaded; many configs have the same nodes


@every_config
def test_saved_config_loads_again(name: str, tmp_path: Path) -> None:
    """With the same content, classes and functions by their names. What is equal in several configs is saved once."""
    cfg, path = config(name).copy(), str(tmp_path / "config.yaml")
    cfg.model = subject(name).node
    OmegaConf.resolve(cfg)
    contents = {key: as_json(cfg[key]) for key in cfg}
    new = [key for key, content in contents.items() if content not in _LOADED]
    LazyConfig.save(OmegaConf.create({key: cfg[key] for key in new}, flags={"allow_objects": True}), path)
    loaded = LazyConfig.load(path)
    assert loaded.keys() == set(new)
    _LOADED.update({contents[key]: as_json(loaded[key]) for key in new})
    for key, content in contents.items():
        assert _LOADED[content] == content, key


def losses_in(node: object) -> Iterator[list[str]]:
    """Yield the names of the losses of each criterion in a config's node."""
    if isinstance(node, DictConfig):
        if isinstance(node.get("losses"), ListConfig):
            yield [instantiate(loss).name for loss in node.losses]
        for key in node:
            yield from losses_in(node[key])
    elif isinstance(node, ListConfig):
        for child in node:
            yield from losses_in(child)


@every_config
def test_the_class_loss_comes_first(name: str) -> None:
    """Overrides of a config name it `losses.0` (docs/ablations.md)."""
    found = list(losses_in(config(name).model))
    assert all("class" not in names[1:] for names in found)
    assert any(names[0] == "class" for names in found) or "criterion" not in config(name).model


@every_config
def test_optimizer_moves_every_parameter(name: str) -> None:
    """And nothing that is frozen, whatever its gradient."""
    model, cfg = subject(name).model, config(name).optimizer.copy()
    cfg.params.model = model
    optimizer = instantiate(cfg)
    with unchanged(model, []) as changed:
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    model.zero_grad(set_to_none=True)
    trained = {key for key, parameter in model.named_parameters(remove_duplicate=False) if parameter.requires_grad}
    assert set(changed) == trained


@every_config
def test_a_config_describes_a_run(name: str) -> None:
    """All that training needs, for some time, beginning with a step."""
    cfg = config(name)
    assert {"model", "optimizer", "lr_multiplier", "train", "dataloader"} <= set(cfg)
    assert cfg.train.max_iter or cfg.train.epochs > 0
    assert instantiate(cfg.lr_multiplier)(0.0) > 0


@every_config
def test_yacs_keys_give_the_same_detector(name: str) -> None:
    """Of the class in detectron2's registry, with the names and shapes of the state dict."""
    model, built = subject(name).model, subject(name).from_yacs
    assert type(built) is type(model) is META_ARCH_REGISTRY.get(type(model).__name__)
    shapes = [{key: value.shape for key, value in x.state_dict().items()} for x in (model, built)]
    assert shapes[0] == shapes[1]
    built.load_state_dict(model.state_dict())


def test_every_registered_detector_has_a_config() -> None:
    described = {config(name).model["_target_"] for name in model_zoo.names()}
    registered = {detector for _, detector in META_ARCH_REGISTRY}
    assert described <= registered
    assert {x for x in registered if x.__module__.startswith("align_detr.")} <= described


def test_each_run_has_a_folder_of_its_own() -> None:
    folders = [config(name).train.output_dir for name in model_zoo.names()]
    assert len(set(folders)) == len(folders) >= 8
