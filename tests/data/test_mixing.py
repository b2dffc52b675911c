"""Mosaic and mixup: pixels and boxes of worked cases, objects that are left out, and when a loader mixes."""

from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances

from align_detr.data import DetrMapper, MaskMapper, MixUp, Mosaic, build_train_loader
from align_detr.errors import ConfigError

Mapped = dict[str, Any]


def mapped(level: int, height: int, width: int, *boxes: list[float], image_id: int = 0) -> Mapped:
    """A mapped image of one level, whose objects have the level as their class."""
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
    instances.gt_classes = torch.full((len(boxes),), level)
    image = torch.full((3, height, width), level, dtype=torch.uint8)
    return {"image": image, "instances": instances, "image_id": image_id, "height": 1, "width": 1}


def drawing(*records: Mapped) -> Callable[[], Mapped]:
    """Draw the records in their order."""
    left = iter(records)
    return lambda: next(left)


def objects(record: Mapped) -> list[tuple[list[float], int]]:
    boxes, classes = record["instances"].gt_boxes.tensor.tolist(), record["instances"].gt_classes.tolist()
    return list(zip(boxes, classes, strict=True))


@pytest.fixture
def least(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every draw give its least value: images shrink as far as they can, and windows begin top left."""
    monkeypatch.setattr(np.random, "uniform", lambda low, high: low)
    monkeypatch.setattr(np.random, "randint", lambda high: 0)


@pytest.mark.usefixtures("least")
def test_mosaic_by_hand() -> None:
    """In the canvas of 8x8 each quadrant has 4x4 pixels. Half of an image of 16x8 is beyond its quadrant; one of 2x2 is
    enlarged.
    """
    first = mapped(10, 8, 8, [2, 2, 6, 6])
    others = [mapped(20, 8, 8, [0, 0, 8, 4]), mapped(30, 16, 8, [0, 0, 8, 4], [0, 12, 8, 16]), mapped(40, 2, 2)]
    for number, other in enumerate(others, start=5):
        other["image_id"] = number
    found = Mosaic(centre=[0.5, 0.5]).mix(first, drawing(*others))
    quadrants = [found["image"][:, y : y + 4, x : x + 4] for y in (0, 4) for x in (0, 4)]
    assert [quadrant.unique().tolist() for quadrant in quadrants] == [[10], [20], [30], [40]]
    assert objects(found) == [([1, 1, 3, 3], 10), ([4, 0, 8, 2], 20), ([0, 4, 4, 6], 30)]
    assert found["instances"].image_size == (8, 8)
    assert (found["mixed_with"], found["left_out"]) == ([5, 6, 7], 1)
    assert {key: found[key] for key in ("image_id", "height", "width")} == {"image_id": 0, "height": 1, "width": 1}
    assert objects(first) == [([2, 2, 6, 6], 10)] and first["image"].unique().tolist() == [10]


@pytest.mark.usefixtures("least")
def test_mixup_by_hand() -> None:
    """0.5 x 100 + 0.5 x 201 = 150.5, rounded to the even 150. The second image shrinks to half, the first stays."""
    first, second = mapped(100, 4, 8, [0, 0, 1, 1]), mapped(201, 16, 16, [0, 0, 8, 4], [0, 7, 8, 16])
    found = MixUp(weight=[0.5, 0.5], min_visible=0.2).mix(first, drawing(second))
    assert found["image"].unique().tolist() == [150] and found["image"].dtype == torch.uint8
    # boxes of the second, halved: (0, 0, 4, 2), and (0, 3.5, 4, 8), of which 0.5 of 4.5 pixels in height is left
    assert objects(found) == [([0, 0, 1, 1], 100), ([0, 0, 4, 2], 201)] and found["left_out"] == 1


@pytest.mark.parametrize(("min_visible", "min_side", "left_out"), [(0.25, 1, 0), (0.26, 1, 1), (0.25, 1.1, 1)])
@pytest.mark.usefixtures("least")
def test_leftovers_of_a_cut(min_visible: float, min_side: float, left_out: int) -> None:
    """Of a box of 4x4 pixels the window of 8x4 has a column of one pixel."""
    piece = Mosaic(min_visible=min_visible, min_side=min_side).cut(mapped(7, 8, 8, [3, 0, 7, 4]), 8, 4)
    assert piece.left_out == left_out and piece.boxes.tolist() == [[3, 0, 4, 4]] * (1 - left_out)
    assert piece.classes.tolist() == [7] * (1 - left_out) and piece.pixels.shape == (3, 8, 4)


@pytest.mark.parametrize("mix", [Mosaic(min_side=4), MixUp(min_side=4, weight=[0, 0])])
def test_boxes_stay_around_their_pixels(mix: Mosaic | MixUp) -> None:
    """Of images of any size one has a bright rectangle: it fills its box in the mixture, up to the blur of resizing."""
    np.random.seed(0)
    seen = 0
    for number in range(80):
        records = [mapped(0, *np.random.randint(20, 60, 2).tolist()) for _ in range(4)]
        at = 1 if isinstance(mix, MixUp) else number % 4
        height, width = records[at]["image"].shape[1:]
        x, y = np.random.randint(width - 15), np.random.randint(height - 15)
        records[at] = mapped(0, height, width, [x, y, x + 15, y + 15])
        records[at]["image"][:, y : y + 15, x : x + 15] = 240
        found = mix.mix(records[0], drawing(*records[1:]))
        assert len(objects(found)) + found["left_out"] == 1
        for box, _ in objects(found):
            ys, xs = torch.nonzero(found["image"][0] > 120, as_tuple=True)
            edges = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            assert np.abs(np.array(edges) - box).max() <= 1
            seen += 1
    assert seen > 40


def test_empty_images_and_images_of_one_row() -> None:
    first, thin = mapped(1, 8, 8), mapped(1, 1, 8)
    others = [mapped(2, 9, 5), mapped(3, 4, 4), thin]
    assert objects(Mosaic().mix(first, drawing(*others))) == [] == objects(MixUp().mix(first, drawing(thin)))
    assert Mosaic().mix(thin, drawing()) is thin


@pytest.mark.parametrize("progress", [0.0, 0.24, 0.5, 1.0])
def test_nothing_is_drawn_beside_the_time_of_mixing(progress: float) -> None:
    np.random.seed(1)
    before = np.random.get_state()[1].tolist()
    record = mapped(1, 8, 8)
    assert Mosaic(start=0.25, stop=0.5, probability=1)(record, progress, drawing()) is record
    assert np.random.get_state()[1].tolist() == before


def loader_of(name: str, *mixes: Mosaic | MixUp, **options: object) -> Any:
    mapper = options.pop("mapper", DetrMapper(augmentations=[], is_train=True))
    options = {"total_batch_size": 2, "num_workers": 0, "seed": 7, "aspect_ratio_grouping": False} | options
    return build_train_loader(dataset=name, mapper=mapper, mixes=mixes, **options)


def test_a_loader_mixes_between_two_iterations(tiny: str) -> None:
    """0.25 and 0.75 of 8: batches 2 to 5. The order of images stays, sizes and all other images, too."""
    loader = loader_of(tiny, Mosaic(start=0.25, stop=0.75, probability=1))
    loader.plan(8)
    batches, plain = list(islice(loader, 8)), list(islice(loader_of(tiny), 8))
    mixed = [["mixed_with" in record for record in batch] for batch in batches]
    assert mixed == [[False] * 2] * 2 + [[True] * 2] * 4 + [[False] * 2] * 2
    for batch, other in zip(batches, plain, strict=True):
        for one, each in zip(batch, other, strict=True):
            assert one["image_id"] == each["image_id"] and one["image"].shape == each["image"].shape
            assert "mixed_with" in one or torch.equal(one["image"], each["image"])


def test_workers_and_a_later_start_change_no_mixture(tiny: str) -> None:
    def records(workers: int, start: int) -> list[Mapped]:
        loader = loader_of(tiny, Mosaic(), MixUp(), num_workers=workers)
        loader.plan(8)
        loader.start_at(start)
        return [record for batch in islice(loader, 5 - start) for record in batch]

    one, other = records(1, 0), records(2, 2)
    assert any("mixed_with" in record for record in other)
    for a, b in zip(one[4:], other, strict=True):
        assert torch.equal(a["image"], b["image"]) and objects(a) == objects(b)
        assert a.get("mixed_with") == b.get("mixed_with")


def test_a_loader_that_does_not_know_the_length(tiny: str) -> None:
    with pytest.raises(ConfigError, match=r"length is not known: call plan\(max_iter\)"):
        next(iter(loader_of(tiny, Mosaic())))


def test_mixes_beside_a_mapper_of_masks_are_refused_with_the_loader(tiny: str) -> None:
    with pytest.raises(ConfigError, match=r"but the MaskMapper of dataloader\.train gives masks: remove mixes"):
        loader_of(tiny, Mosaic(), mapper=MaskMapper(augmentations=[], is_train=True))
    loader_of(tiny, mapper=MaskMapper(augmentations=[], is_train=True))


def test_null_mixes_nothing(tiny: str) -> None:
    mapper = DetrMapper(augmentations=[], is_train=True)
    loader = build_train_loader(dataset=tiny, mapper=mapper, total_batch_size=2, num_workers=0, mixes=None)
    assert loader.dataset.mixes == []


@pytest.mark.parametrize("mixes", ["Mosaic", 1, MixUp(), {"a": MixUp()}, [None], ["Mosaic"], [MixUp]])
def test_what_is_no_list_of_mixes(tiny: str, mixes: Any) -> None:
    mapper = DetrMapper(augmentations=[], is_train=True)
    with pytest.raises(ConfigError, match=r"^dataloader\.train\.mixes is .*, but must be a list of mixes: set it to"):
        build_train_loader(dataset=tiny, mapper=mapper, total_batch_size=2, num_workers=0, mixes=mixes)


@pytest.mark.parametrize("workers", [0, 1])
def test_masks_are_refused_before_the_first_mixture(tiny: str, workers: int) -> None:
    def with_masks(record: Mapped) -> Mapped:
        found = mapped(1, 4, 4)
        found["instances"].gt_masks = BitMasks(torch.zeros(0, 4, 4, dtype=torch.bool))
        return found

    loader = loader_of(tiny, Mosaic(start=0.5, stop=1), mapper=with_masks, num_workers=workers)
    loader.plan(8)
    with pytest.raises(ConfigError) as error:
        next(iter(loader))
    assert str(error.value) == (
        "dataloader.train.mixes mixes boxes with classes, but the mapper of dataloader.train gives gt_boxes, "
        "gt_classes, gt_masks: remove mixes, or use DetrMapper."
    )


@pytest.mark.parametrize("value", [0.5, "ab", ["a", "b"], None, [0.6, 0.4], [0.5], [0.1, float("nan")], [-0.1, 1]])
def test_what_is_no_interval(value: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"^MixUp\.weight is .*, but must be two shares, .*: set it to \[0\.45,0\.55\]"
    ):
        MixUp(weight=value)
    with pytest.raises(
        ConfigError, match=r"^Mosaic\.centre is .*, but must be two shares, .*: set it to \[0\.25,0\.75\]"
    ):
        Mosaic(centre=value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"probability": 1.5}, r"Mosaic\.probability is 1\.5, but must lie in \[0, 1\]"),
        ({"stop": -1}, r"Mosaic\.stop is -1, but must lie in \[0, 1\]"),
        (
            {"start": 0.4, "stop": 0.2},
            r"Mosaic\.start is 0\.4 and Mosaic\.stop is 0\.2, which leave no time for mixing",
        ),
        ({"start": 0.2, "stop": 0.2}, r"Mosaic\.start is 0\.2 and Mosaic\.stop is 0\.2, which leave no time"),
        ({"start": 0.6}, r"Mosaic\.start is 0\.6 and Mosaic\.stop is 0\.5, .* set stop \(0\.5 where none is given\)"),
        ({"stop": 0}, r"Mosaic\.start is 0\.0 and Mosaic\.stop is 0, which leave no time"),
        ({"centre": [0.6, 0.4]}, r"Mosaic\.centre is \[0\.6, 0\.4\], but must be two shares"),
        ({"min_side": -1}, r"Mosaic\.min_side is -1, but must be a finite number of at least 0"),
    ],
)
def test_settings_that_cannot_be_used(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Mosaic(**options)
