"""What goes into an exported file: the description of it, and images as `Detector` sees them by torch."""

import json

import numpy as np
import pytest
from detectron2.data import transforms as T
from PIL import Image

from align_detr.data.fast_transforms import apply_to_image
from align_detr.errors import ConfigError, DatasetError
from align_detr.export.inputs import Input, batches, feed, prepare, seen_size
from align_detr.export.metadata import Description, read_description
from align_detr.export.resizing import resize
from align_detr.inference.views import TestView
from support.onnx_file import described


def description(**changes: object) -> Description:
    return read_description(described(**changes), "a.onnx")


def photo(height: int, width: int) -> np.ndarray:
    """Return noise in patches, so that resizing has edges to smooth."""
    patches = np.random.default_rng(5).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(patches).resize((width, height), Image.Resampling.NEAREST))


@pytest.mark.parametrize("size", [(480, 640), (640, 481), (333, 333), (100, 901), (31, 30), (1, 7)])
@pytest.mark.parametrize("resize", [(64, 107), (800, 1333), (45, 1 << 40)])
def test_an_image_has_the_size_that_the_test_mapper_gives_it(size: tuple[int, int], resize: tuple[int, int]) -> None:
    transform = T.ResizeShortestEdge([resize[0]] * 2, resize[1]).get_transform(np.empty((*size, 3), dtype=np.uint8))
    ours = description(resize={"short_edge": resize[0], "max_size": resize[1]})
    assert seen_size(size, ours) == (transform.new_h, transform.new_w)


@pytest.mark.parametrize("size", [(150, 200), (90, 31), (40, 52)])
def test_pixels_are_those_of_the_other_detector(size: tuple[int, int]) -> None:
    """Smaller and larger than the short edge of 64."""
    pixels = photo(*size)
    (view,) = TestView([T.ResizeShortestEdge([64, 64], 107)]).views()
    theirs = view.image(pixels, "The image").numpy()
    seen = prepare(pixels, description(resize={"short_edge": 64, "max_size": 107}), "The image")
    ours = feed([seen], description())["images"][0]
    assert seen.size == size and ours.shape == theirs.shape
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("before", [(1, 1), (7, 300), (64, 33), (500, 20)])
@pytest.mark.parametrize("after", [(1, 2), (64, 33), (129, 7)])
def test_resizing_is_torchs_to_the_last_bit(before: tuple[int, int], after: tuple[int, int]) -> None:
    """Up to 300 times smaller, where sums need more than single precision."""
    pixels = np.random.default_rng(4).integers(0, 256, (*before, 3), dtype=np.uint8)
    theirs = apply_to_image(T.ResizeTransform(*before, *after), pixels)
    assert np.array_equal(resize(pixels, after), theirs)
    assert np.array_equal(resize(np.full_like(pixels, 255), after), np.full_like(theirs, 255))


def test_an_image_fits_into_a_fixed_size_and_is_padded() -> None:
    """60x80 into 32x32: a scale of 0.4; 10x10 becomes 32x32. Without a resize, sizes stay."""
    fixed = description(size=[32, 32], size_multiple=32)
    seen = [prepare(np.full((*size, 3), 200, np.uint8), fixed, "The image") for size in ((60, 80), (10, 10))]
    inputs = feed(seen, fixed)
    assert inputs["sizes"].tolist() == [[24, 32], [32, 32]] and inputs["sizes"].dtype == np.int64
    assert inputs["images"].shape == (2, 3, 32, 32) and inputs["images"].dtype == np.uint8
    assert (inputs["images"][0, :, :24] == 200).all() and (inputs["images"][0, :, 24:] == 0).all()
    assert seen_size((60, 80), description(resize=None)) == (60, 80)
    assert seen_size((1, 1000), fixed) == (0, 32)
    with pytest.raises(DatasetError, match="The image with 1000x1 pixels cannot be resized to 32x0: crop it"):
        prepare(np.zeros((1, 1000, 3), np.uint8), fixed, "The image")


def test_free_sizes_are_padded_to_the_multiple() -> None:
    """8x10 to multiples of 16."""
    inputs = feed([Input(np.ones((8, 10, 3), np.uint8), (8, 10))], description(size_multiple=16))
    assert inputs["images"].shape == (1, 3, 16, 16) and inputs["images"].sum() == 3 * 80


def test_a_normalised_file_gets_normalised_pixels_in_its_order() -> None:
    """Blue, green, red of BGR, whose first mean and std are of blue; padding is zero."""
    order = description(input="normalised", channels="BGR", size_multiple=4)
    pixels = np.full((4, 3, 3), (240, 165, 150), np.uint8)
    images = feed([Input(pixels, (4, 3))], order)["images"]
    assert images.dtype == np.float32 and images[0, :, 0, 0].tolist() == [1.0, 1.0, 2.0]
    assert (images[..., 3] == 0).all()


def test_a_pass_has_images_of_one_size_and_of_the_files_number() -> None:
    inputs = [Input(np.zeros((*size, 3), np.uint8), size) for size in ((8, 8), (8, 9), (8, 8), (8, 8))]
    assert batches(inputs, description()) == [[0, 2, 3], [1]]
    assert batches(inputs, description(batch=2)) == [[0, 2], [3], [1]]
    assert batches(inputs, description(size=[9, 9], batch=3)) == [[0, 1, 2], [3]]
    assert feed(inputs[:1], description(batch=3))["sizes"].tolist() == [[8, 8]] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2, "version": "0.9"}, r"a\.onnx has format 2 .* reads up to 1: install version 0\.9 or newer"),
        ({"format": "1"}, "damaged .*format is '1'"),
        ({"pixel_mean": [10**400, 1, 1]}, "damaged .*OverflowError"),
        ({"class_names": []}, "metadata of a.onnx is damaged .*class_names"),
        ({"category_ids": [1]}, "damaged .*category_ids do not fit"),
        ({"input": "int4"}, "damaged .*input is 'int4'"),
        ({"pixel_std": [1, 0, 1]}, "damaged .*0 is no positive number"),
        ({"pixel_mean": [1, 2]}, "damaged"),
        ({"size": [0, 4]}, "damaged .*0 is no number from 1"),
        ({"size_multiple": "32"}, "damaged"),
        ({"resize": 800}, "damaged"),
    ],
)
def test_a_description_that_cannot_be_used_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        description(**changes)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', "[" * 100_000, "null"])
def test_a_description_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"The metadata of a\.onnx is damaged .*export the detector again"):
        read_description({"align_detr": text}, "a.onnx")


def test_a_file_of_another_tool_is_refused() -> None:
    with pytest.raises(ConfigError, match="a.onnx is an ONNX file, but none that this library has exported"):
        read_description({"names": json.dumps({"0": "person"})}, "a.onnx")
