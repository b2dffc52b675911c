"""Targets from detectron2's annotations."""

import pytest
import torch
from detectron2.structures import Boxes, Instances
from torch.testing import assert_close

from align_detr.errors import DatasetError
from align_detr.structures import Memory, Targets, fields_of


def annotated(boxes: list[list[float]], classes: list[int], size: tuple[int, int] = (50, 100)) -> Instances:
    return Instances(
        size, gt_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)), gt_classes=torch.tensor(classes, dtype=torch.int64)
    )


def test_boxes_are_divided_by_their_own_image() -> None:
    first = annotated([[10.0, 10.0, 30.0, 20.0]], [2])
    second = annotated([[0.0, 0.0, 10.0, 20.0], [5.0, 5.0, 10.0, 10.0]], [0, 1], size=(20, 10))
    targets = Targets.from_instances([first, second], num_classes=3, device="cpu")
    assert targets.counts == [1, 2]
    assert targets.labels.tolist()[1] == [0, 1] and targets.labels[0, 0] == 2
    assert_close(targets.boxes[0, 0], torch.tensor([0.2, 0.3, 0.2, 0.2]))
    assert_close(targets.boxes[1], torch.tensor([[0.5, 0.5, 1.0, 1.0], [0.75, 0.375, 0.5, 0.25]]))


def test_no_objects_leave_one_padding_column() -> None:
    targets = Targets.from_instances([annotated([], []), annotated([], [])], num_classes=3, device="cpu")
    assert targets.labels.shape == (2, 1) and targets.boxes.shape == (2, 1, 4) and targets.counts == [0, 0]


def test_images_that_are_left_out_have_no_objects() -> None:
    one, two = annotated([[0.0, 0.0, 1.0, 1.0]], [1]), annotated([[0.0, 0.0, 9.0, 9.0]] * 2, [0, 1])
    targets = Targets.from_instances([two, one, two], num_classes=3, device="cpu", names=["a", "b", "c"])
    few = targets.without_images({2}).without_images({0})
    assert few.counts == [0, 1, 0] and few.left_out == (0, 2) and few.name_of(2) == "c"
    assert [len(x) for x in few.instances] == [0, 1, 0]
    assert targets.counts == [2, 1, 2] and targets.left_out == ()


def test_a_class_that_the_model_does_not_have() -> None:
    wrong = [annotated([], []), annotated([[0.0, 0.0, 1.0, 1.0]], [3])]
    with pytest.raises(DatasetError, match=r"Image b.jpg has .* class 3, but .* 3 classes \(0 to 2\): set model.head"):
        Targets.from_instances(wrong, num_classes=3, device="cpu", names=["a.jpg", "b.jpg"])
    with pytest.raises(DatasetError, match="Image number 1 of the batch"):
        Targets.from_instances(wrong, num_classes=3, device="cpu")


def test_a_box_that_is_not_finite() -> None:
    with pytest.raises(DatasetError, match="not finite"):
        Targets.from_instances([annotated([[0.0, 0.0, float("nan"), 1.0]], [0])], num_classes=3, device="cpu")


def test_a_box_with_swapped_corners() -> None:
    with pytest.raises(DatasetError, match="right or bottom edge comes before"):
        Targets.from_instances([annotated([[9.0, 0.0, 1.0, 1.0]], [0])], num_classes=3, device="cpu")
    flat = Targets.from_instances([annotated([[1.0, 0.0, 1.0, 1.0]], [0])], num_classes=3, device="cpu")
    assert flat.counts == [1], "a box without width is ordinary"


def test_a_memory_becomes_a_subclass_after_use() -> None:
    """Each neck adds its field, whether or not a value that is computed once was read."""
    fields = fields_of(used_memory())
    assert fields.keys() == {"tokens", "position", "padding", "shapes", "valid_sizes"}
    assert Memory(**fields).valid_ratios.tolist() == [[[0.5, 0.5]]]


def used_memory() -> Memory:
    memory = Memory(torch.ones(1, 8, 3), torch.ones(1, 8, 3), None, shapes=[(2, 4)], valid_sizes=[[(1, 2)]])
    assert memory.tokens_and_position.shape == memory.tokens.shape and memory.valid_ratios.shape == (1, 1, 2)
    return memory


def test_memory_computes_once_for_each_of_its_contents() -> None:
    """The image covers 1 x 2 of 2 x 4 tokens."""
    tokens = torch.ones(1, 8, 3)
    memory = Memory(tokens, 2 * tokens, padding=None, shapes=[(2, 4)], valid_sizes=[[(1, 2)]])
    assert memory.tokens_and_position is memory.tokens_and_position and memory.valid_ratios is memory.valid_ratios
    assert_close(memory.tokens_and_position, 3 * tokens)
    assert memory.valid_ratios.tolist() == [[[0.5, 0.5]]]
    assert_close(memory.with_tokens(5 * tokens).tokens_and_position, 7 * tokens)
    assert isinstance(Memory.tokens_and_position, property) and Memory.tokens_and_position.__doc__.startswith(
        "Tokens + position"
    )
