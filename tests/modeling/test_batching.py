"""Batches of images of different sizes: which images pass together, and the errors of an unusable batch."""

import pytest
import torch

from align_detr.errors import DatasetError
from align_detr.modeling.batching import one_size_at_a_time, pad_and_stack, targets_of_batch
from support.inputs import image_input


def test_images_of_one_size_pass_together_and_results_keep_their_order() -> None:
    sizes = [(8, 6), (4, 4), (8, 6), (6, 8), (4, 4)]
    asked = []

    def detect(indices: list[int]) -> list[str]:
        asked.append(indices)
        return [f"of {i}" for i in indices]

    found = one_size_at_a_time([torch.zeros(3, *size) for size in sizes], detect)
    assert found == ["of 0", "of 1", "of 2", "of 3", "of 4"]
    assert asked == [[0, 2], [1, 4], [3]]
    assert one_size_at_a_time([], detect) == [] and len(asked) == 3


def test_maps_with_gradient_are_padded_and_pass_it_on() -> None:
    """As of a batch of several sizes in evaluation, outside of `no_grad`."""
    maps = [torch.ones(1, 1, 2, requires_grad=True), torch.ones(1, 2, 1, requires_grad=True)]
    padded = pad_and_stack([2 * x for x in maps], (2, 2))
    assert padded.tolist() == [[[[2, 2], [0, 0]]], [[[2, 0], [2, 0]]]]
    padded.sum().backward()
    assert [x.grad.tolist() for x in maps] == [[[[2, 2]]], [[[2], [2]]]]


def test_a_missing_result_raises() -> None:
    with pytest.raises(ValueError, match="zip"):
        one_size_at_a_time([torch.zeros(3, 4, 4)] * 2, lambda indices: ["one"])


def test_targets_of_a_batch() -> None:
    batch = [image_input(40, 30, 2), image_input(20, 60, 0)]
    targets = targets_of_batch(batch, num_classes=3, device="cpu")
    assert targets.counts == [2, 0] and targets.name_of(1) == "number 1 of the batch"
    assert targets.instances[0] is batch[0]["instances"]


def test_a_batch_that_cannot_be_trained_on_names_the_image() -> None:
    good, bad = image_input(40, 30, 1), {**image_input(40, 30, 1), "file_name": "street.jpg"}
    with pytest.raises(DatasetError, match="no image"):
        targets_of_batch([], num_classes=3, device="cpu")
    bad["instances"].gt_classes[:] = 7
    with pytest.raises(DatasetError, match=r"street\.jpg has an object of class 7, .*model\.roi_heads\.num_classes"):
        targets_of_batch([good, bad], num_classes=3, device="cpu")
    del bad["instances"]
    with pytest.raises(DatasetError, match=r"street\.jpg has no 'instances'"):
        targets_of_batch([good, bad], num_classes=3, device="cpu")
