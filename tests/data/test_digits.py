"""Digits in photos: exact boxes, disjoint splits, the same bytes from the same seed, and safe files."""

import json
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

from align_detr.data import digits, digits_scene, load_dataset
from align_detr.data.digits import DigitsSpec, ensure_digits, register_digits
from align_detr.data.digits_scene import SceneSources, load_sources, paste_ink, render_scene, warp_digit
from align_detr.errors import DatasetError, EnvironmentProblem

TRAIN, VAL = DigitsSpec(split="train", num_images=12), DigitsSpec(split="val", num_images=6)


@pytest.fixture(scope="module")
def sources() -> dict[str, SceneSources]:
    return {split: load_sources(split) for split in ("train", "val")}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    cache = tmp_path_factory.mktemp("cache")
    return {spec.split: ensure_digits(spec, cache) for spec in (TRAIN, VAL)}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_splits_share_no_digit_and_hold_a_quarter_of_each_class_out(sources: dict[str, SceneSources]) -> None:
    train, val = sources["train"].indices, sources["val"].indices
    assert sorted([*train, *val]) == list(range(1797))
    labels = load_digits().target
    for label in range(10):
        assert (labels[val] == label).sum() == (labels == label).sum() // 4
    assert (sources["val"].labels == labels[val]).all()


def test_splits_share_no_photo_pixel(sources: dict[str, SceneSources]) -> None:
    for number, name in enumerate(["china.jpg", "flower.jpg"]):
        val, train = (np.asarray(sources[split].photos[number]) for split in ("val", "train"))
        assert val.shape[1] == 256  # 40 % of 640
        assert (np.concatenate([val, train], axis=1) == load_sample_image(name)).all()


def test_digits_of_the_files_belong_to_their_split(made: dict[str, Path], sources: dict[str, SceneSources]) -> None:
    labels = load_digits().target
    for split, folder in made.items():
        annotations = json.loads((folder / "instances.json").read_text())["annotations"]
        assert {a["source_digit"] for a in annotations} <= set(sources[split].indices.tolist())
        assert all(a["category_id"] == labels[a["source_digit"]] + 1 for a in annotations)


@pytest.mark.parametrize("split", ["train", "val"])
def test_boxes_fit_the_pasted_ink(
    split: str, sources: dict[str, SceneSources], monkeypatch: pytest.MonkeyPatch
) -> None:
    pasted: list[np.ndarray] = []

    def record(canvas: np.ndarray, ink: np.ndarray, *, x: int, y: int, **options: object) -> None:
        layer = np.zeros((128 + 400, 128 + 400))
        layer[y + 200 : y + 200 + ink.shape[0], x + 200 : x + 200 + ink.shape[1]] = ink
        pasted.append(layer)
        paste_ink(canvas, ink, x=x, y=y, **options)

    monkeypatch.setattr(digits_scene, "paste_ink", record)
    for seed in range(20):
        pasted.clear()
        image, placed = render_scene(np.random.default_rng(seed), sources[split])
        assert image.shape == (128, 128, 3) and image.dtype == np.uint8
        assert 2 <= len(placed) <= 8 and len(pasted) == len(placed)
        filled = []
        for layer, digit in zip(pasted, placed, strict=True):
            ys, xs = np.nonzero(layer > 0.3)
            box = (xs.min() - 200, ys.min() - 200, xs.max() + 1 - 200, ys.max() + 1 - 200)
            assert digit.box == box
            assert min(box) >= 0 and max(box) <= 128
            filled.append(np.zeros((128, 128), dtype=bool))
            filled[-1][box[1] : box[3], box[0] : box[2]] = True
        for i, a in enumerate(filled):
            assert all((a & b).sum() <= 0.15 * min(a.sum(), b.sum()) for b in filled[:i])


def test_ink_drawn_in_white_on_black_shows_the_box(sources: dict[str, SceneSources]) -> None:
    for number in range(20):
        ink, (x0, y0, x1, y1) = warp_digit(sources["val"].digits[number], height=20 + 2 * number, angle=0.2, shear=0.1)
        canvas = np.zeros((150, 150, 3), dtype=np.float32)
        paste_ink(canvas, ink, x=40, y=30, color=(1, 1, 1), opacity=1.0)
        ys, xs = np.nonzero(canvas[..., 0] > 0.3)
        assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == (40 + x0, 30 + y0, 40 + x1, 30 + y1)


def test_warp_has_the_given_size() -> None:
    """A grid full of ink is a rectangle whose edges (ink 0.5) lie at the given size; 0.3 lies a little further out."""
    _, (x0, y0, x1, y1) = warp_digit(np.ones((8, 8), dtype=np.float32), height=40, log_aspect=np.log(0.75))
    assert 40 <= y1 - y0 <= 44 and 30 <= x1 - x0 <= 34


def test_warp_is_the_bicubic_formula_on_the_padded_grid(sources: dict[str, SceneSources]) -> None:
    """At twice the size a pixel centre lies a quarter cell beside a cell centre; Keys' kernel has a = -1."""
    digit = sources["train"].digits[5].astype(np.float64)
    near, far, outer, last = 0.890625, 0.296875, -0.140625, -0.046875  # kernel at 1/4, 3/4, 5/4, 7/4 cells
    matrix = np.zeros((24, 12))
    for pixel in range(24):
        cell, after = divmod(pixel, 2)
        step = 1 if after else -1
        for offset, weight in ((0, near), (step, far), (-step, outer), (2 * step, last)):
            if 0 <= cell + offset < 12:
                matrix[pixel, cell + offset] += weight
    expected = np.clip(matrix @ np.pad(digit, 2) @ matrix.T, 0, 1)[2:-2, 2:-2]
    rows, columns = np.nonzero(expected > 1 / 255)
    expected = expected[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    ink, _ = warp_digit(sources["train"].digits[5], height=16)
    assert ink.shape == expected.shape
    assert np.abs(ink - expected).max() < 1e-5


def test_paste_blends_and_cuts_at_the_border() -> None:
    canvas = np.full((4, 5, 3), 0.5, dtype=np.float32)
    paste_ink(canvas, np.array([[1.0, 0.5], [0.2, 1.0]], dtype=np.float32), x=-1, y=3, color=(1, 0, 0.5), opacity=0.8)
    assert canvas[3, 0] == pytest.approx([0.7, 0.3, 0.5])  # alpha 0.5 * 0.8
    canvas[3, 0] = 0.5
    assert (canvas == 0.5).all()


def test_the_same_seed_gives_the_same_bytes(made: dict[str, Path], tmp_path: Path) -> None:
    again = ensure_digits(TRAIN, tmp_path)
    assert contents(again) == contents(made["train"])
    assert len(contents(again)) == TRAIN.num_images + 1


def test_another_seed_gives_other_images_in_another_folder(made: dict[str, Path], tmp_path: Path) -> None:
    other = ensure_digits(DigitsSpec(split="train", num_images=2, seed=1), tmp_path)
    name = "images/train_000000.png"
    assert contents(other)[name] != contents(made["train"])[name]
    assert other.name != made["train"].name


def test_an_image_does_not_depend_on_their_number(made: dict[str, Path], tmp_path: Path) -> None:
    fewer = ensure_digits(DigitsSpec(split="train", num_images=2), tmp_path)
    name = "images/train_000001.png"
    assert contents(fewer)[name] == contents(made["train"])[name]


def test_files_are_made_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger=digits.__name__), ThreadPoolExecutor(3) as pool:
        folders = list(pool.map(lambda _: ensure_digits(VAL, tmp_path), range(3)))
    assert len(set(folders)) == 1 and len(list((folders[0] / "images").iterdir())) == VAL.num_images
    assert sum("Making" in r.getMessage() for r in caplog.records) == 1
    assert [p for p in tmp_path.iterdir() if p.is_dir()] == [folders[0]]


def test_an_interrupted_making_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(digits, "render_scene", interrupt)
        ensure_digits(VAL, tmp_path)
    assert not [p for p in tmp_path.iterdir() if p.is_dir()]
    assert (ensure_digits(VAL, tmp_path) / "instances.json").is_file()


def test_a_split_that_exists_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ensure_digits(VAL, tmp_path)
    monkeypatch.setattr(digits, "_make", lambda *_: pytest.fail("made again"))
    assert ensure_digits(VAL, tmp_path) == folder


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(
        EnvironmentProblem, match=r"cannot be imported \(.*\): install it with pip install scikit-learn"
    ):
        load_sources("val")


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DatasetError, match="ALIGN_DETR_CACHE"):
        ensure_digits(VAL, tmp_path / "file")


def test_registered_data_set_is_made_when_asked_for(tmp_path: Path) -> None:
    name = "digits_for_tests"
    register_digits(name, VAL, tmp_path)
    register_digits(name, VAL, tmp_path)  # a second time changes nothing
    try:
        metadata = MetadataCatalog.get(name)
        assert not Path(metadata.json_file).exists()
        records = load_dataset(name)
        assert metadata.thing_classes == [str(d) for d in range(10)] and metadata.evaluator_type == "coco"
        assert metadata.thing_dataset_id_to_contiguous_id == {d + 1: d for d in range(10)}
        assert len(records) == VAL.num_images
        assert all(Image.open(r["file_name"]).size == (r["width"], r["height"]) == (128, 128) for r in records)
        assert {a["category_id"] for r in records for a in r["annotations"]} <= set(range(10))
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
