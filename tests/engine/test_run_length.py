"""Length of an epoch, and the classes of the data of a run."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog
from omegaconf import OmegaConf
from torch import nn

from align_detr.data.annotations import Annotations
from align_detr.data.register import register
from align_detr.engine.build import check_classes
from align_detr.engine.class_names import ClassNames, check_trained_classes
from align_detr.engine.run_length import resolve_length
from align_detr.errors import DatasetError
from support.datasets import forgotten

NAMES = ("length_train", "length_val")


@pytest.fixture(autouse=True)
def _forget_names() -> Iterator[None]:
    with forgotten(*NAMES):
        yield


def register_boxes(name: str, folder: Path, objects: list[int], classes: tuple[str, ...] = ("red", "blue")) -> None:
    """Register ten images and one box in each of the images `objects`."""
    box = {"category_id": 0, "bbox": [1, 1, 4, 4], "iscrowd": 0}
    images = [{"id": i, "file_name": f"{i}.png", "width": 9, "height": 9} for i in range(10)]
    categories = [{"id": k, "name": label} for k, label in enumerate(classes)]
    register(name, Annotations(images, [{**box, "image_id": i} for i in objects], categories, folder, folder))


def length(**loader: object):
    options = OmegaConf.create({"max_iter": None, "epochs": 3, "eval_period": None, "checkpointer": {"period": None}})
    return resolve_length(options, OmegaConf.create({"total_batch_size": 2, **loader}), 1)


@pytest.mark.parametrize(
    ("loader", "images"),
    [
        ({"dataset": NAMES[0]}, 10),
        ({"dataset": NAMES[0], "filter_empty": True}, 4),
        ({"dataset": {"names": NAMES[0]}}, 4),  # detectron2's get_detection_dataset_dicts filters by default
        ({"dataset": {"names": NAMES[0], "filter_empty": False}}, 10),
    ],
)
def test_an_epoch_counts_the_images_that_the_loader_yields(loader: dict, images: int, tmp_path: Path) -> None:
    register_boxes(NAMES[0], tmp_path, [1, 3, 3, 4, 7])
    run = length(**loader)
    assert (run.data.images, run.iterations_per_epoch, run.max_iter) == (images, images // 2, 3 * (images // 2))


@pytest.mark.parametrize("objects", [[], [1]])
def test_training_data_without_a_box_that_takes_part(objects: list[int], tmp_path: Path) -> None:
    register_boxes(NAMES[0], tmp_path, objects)
    DatasetCatalog.data[NAMES[0]] = lambda read=DatasetCatalog.data[NAMES[0]]: [
        {**record, "annotations": [{**a, "bbox": [1, 1, 0, 4]} for a in record["annotations"]]} for record in read()
    ]
    with pytest.raises(DatasetError, match="training data length_train has no box that takes part"):
        length(dataset=NAMES[0])


class Model(nn.Module):
    num_classes = 2


@pytest.mark.parametrize(
    ("classes", "difference"),
    [
        (("blue", "red"), "class 0 is 'red' in the first and 'blue' in the second"),
        (("red", "moon"), "class 1 is 'blue' in the first and 'moon' in the second"),
        (("red",), "the first has 2 classes and the second 1"),
    ],
)
def test_classes_of_training_and_test_data_that_differ(classes: tuple, difference: str, tmp_path: Path) -> None:
    """A detector of one would get an AP of 0 on the other, without a word."""
    register_boxes(NAMES[0], tmp_path, [1])
    register_boxes(NAMES[1], tmp_path, [1], classes)
    with pytest.raises(DatasetError) as error:
        check_classes(Model(), NAMES)
    assert all(part in str(error.value) for part in ("'length_train' and 'length_val'", difference))


def test_classes_of_training_and_test_data_that_agree(tmp_path: Path) -> None:
    for name in NAMES:
        register_boxes(name, tmp_path, [1])
    check_classes(Model(), NAMES)


def test_a_checkpoint_keeps_its_classes_and_refuses_data_with_others(tmp_path: Path) -> None:
    register_boxes(NAMES[0], tmp_path, [1])
    register_boxes(NAMES[1], tmp_path, [1], ("blue", "red"))
    trained = ClassNames(NAMES[:1]).state_dict()["names"]
    check_trained_classes(trained, "model.pth", NAMES[:1])
    with pytest.raises(
        DatasetError, match=r"model\.pth was trained for other classes .*'length_val'.* class 0 is 'red'"
    ):
        check_trained_classes(trained, "model.pth", NAMES[1:])


def test_a_checkpoint_without_classes_passes(tmp_path: Path) -> None:
    register_boxes(NAMES[0], tmp_path, [1])
    check_trained_classes(None, "model.pth", NAMES[:1])
    assert ClassNames([]).state_dict() == {"names": None}
