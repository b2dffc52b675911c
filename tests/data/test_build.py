"""Loaders: order, seeds, grouping, coverage, and errors that cross from the workers."""

from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.utils import comm

from align_detr.data import DetrMapper, build_test_loader, build_train_loader
from align_detr.errors import ConfigError, DatasetError


def train_loader(name: str, **options: object) -> Iterable[list[dict]]:
    mapper = DetrMapper(augmentations=[T.RandomFlip(), T.ResizeShortestEdge([16, 48])], is_train=True)
    return build_train_loader(dataset=name, mapper=mapper, **({"total_batch_size": 2, "num_workers": 0} | options))


def eval_mapper() -> DetrMapper:
    return DetrMapper(augmentations=[], is_train=False)


def image_ids(batches: Iterable[list[dict]]) -> list[list[int]]:
    return [[entry["image_id"] for entry in batch] for batch in batches]


def test_an_epoch_shows_every_image_also_those_without_objects(tiny: str) -> None:
    batches = islice(train_loader(tiny, seed=3, aspect_ratio_grouping=False), 5)
    seen = [i for batch in image_ids(batches) for i in batch]
    assert sorted(seen) == list(range(1, 11))
    assert seen != list(range(1, 11))


def test_filter_empty_leaves_out_images_without_objects(tiny: str) -> None:
    loader = train_loader(tiny, seed=3, filter_empty=True, aspect_ratio_grouping=False)
    seen = [i for batch in image_ids(islice(loader, 4)) for i in batch]
    assert sorted(seen) == list(range(3, 11))  # 1 is empty, 2 has only a crowd region


def test_filter_empty_that_leaves_no_image(register: Callable[..., str], annotations: dict) -> None:
    annotations["annotations"] = annotations["annotations"][:1]  # a crowd region
    with pytest.raises(DatasetError, match="training data tiny_for_tests has no box that takes part"):
        train_loader(register(annotations), filter_empty=True)


@pytest.mark.parametrize("grouping", [False, True])
def test_the_same_seed_gives_the_same_images_and_augmentations(tiny: str, grouping: bool) -> None:
    options = {"aspect_ratio_grouping": grouping, "num_workers": 2}
    first, second, other = (
        [entry for batch in islice(train_loader(tiny, seed=seed, **options), 4) for entry in batch]
        for seed in (7, 7, 8)
    )
    assert [e["image_id"] for e in first] == [e["image_id"] for e in second]
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(first, second, strict=True))
    assert [e["image_id"] for e in first] != [e["image_id"] for e in other]


def test_workers_draw_different_augmentations(tiny: str) -> None:
    batches = islice(train_loader(tiny, seed=7, num_workers=2), 10)
    sides = [entry["image"].shape[1:] for batch in batches for entry in batch]
    assert len({min(side) for side in sides}) > 5


def test_grouped_batches_hold_only_wide_or_only_tall_images(tiny: str, annotations: dict) -> None:
    wide = {image["id"] for image in annotations["images"] if image["width"] > image["height"]}
    for batch in image_ids(islice(train_loader(tiny, seed=1), 12)):
        assert len(batch) == 2 and len({i in wide for i in batch}) == 1


def test_batch_that_the_processes_cannot_share(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comm, "get_world_size", lambda: 3)
    monkeypatch.setattr("align_detr.data.build.comm.get_world_size", lambda: 3)
    with pytest.raises(ConfigError, match=r"dataloader\.train\.total_batch_size is 2.*3 process"):
        train_loader(tiny, seed=1)


def test_ranks_see_different_images_of_one_order(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    single = [i for b in image_ids(islice(train_loader(tiny, seed=5, aspect_ratio_grouping=False), 4)) for i in b]
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        batches = islice(train_loader(tiny, seed=5, aspect_ratio_grouping=False), 4)
        assert [i for b in image_ids(batches) for i in b] == single[rank::2]


@pytest.mark.parametrize(("batch_size", "num_workers"), [(1, 0), (3, 0), (4, 2)])
def test_evaluation_shows_every_image_once_in_order(tiny: str, batch_size: int, num_workers: int) -> None:
    loader = build_test_loader(dataset=tiny, mapper=eval_mapper(), batch_size=batch_size, num_workers=num_workers)
    batches = image_ids(loader)
    assert [i for batch in batches for i in batch] == list(range(1, 11))
    assert len(batches) == len(loader) == -(-10 // batch_size)
    assert all(len(batch) == batch_size for batch in batches[:-1])


def test_ranks_share_the_evaluation_images(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comm, "get_world_size", lambda: 3)
    seen = []
    for rank in range(3):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        loader = build_test_loader(dataset=tiny, mapper=eval_mapper(), batch_size=2, num_workers=0)
        seen += [i for batch in image_ids(loader) for i in batch]
    assert sorted(seen) == list(range(1, 11))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_broken_image_is_one_sentence_also_from_a_worker(tiny: str, tmp_path: Path, num_workers: int) -> None:
    (tmp_path / tiny / "images" / "4.png").write_bytes(b"broken")
    loader = build_test_loader(dataset=tiny, mapper=eval_mapper(), num_workers=num_workers)
    with pytest.raises(DatasetError) as error:
        list(loader)
    message = str(error.value)
    assert message.startswith("The image file ") and "4.png (image 4 of the data set) cannot be read" in message
    assert "\n" not in message and "Traceback" not in message


def test_without_workers_augmentations_follow_numpys_generator(tiny: str) -> None:
    shapes = []
    for _ in range(2):
        np.random.seed(0)
        loader = train_loader(tiny, seed=2, aspect_ratio_grouping=False)
        shapes.append([entry["image"].shape for batch in islice(loader, 5) for entry in batch])
    assert shapes[0] == shapes[1]
