"""Digits with exact masks: every pixel has its segment, and all files say the same."""

import json
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_tools
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from align_detr.data import MaskMapper, digits_scene, load_dataset
from align_detr.data.digits import DigitsSpec
from align_detr.data.digits_panoptic import ensure_digits_panoptic, register_digits_panoptic, render_panoptic
from align_detr.data.digits_scene import load_sources, paste_ink
from support.datasets import forgotten

SPEC = DigitsSpec(split="val", num_images=3)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("cache")
    ensure_digits_panoptic(SPEC, cache)
    return cache


def test_segments_divide_the_image_as_it_was_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ink of a later digit covers an earlier one; the rest is photo."""
    pasted: list[np.ndarray] = []

    def record(canvas: np.ndarray, ink: np.ndarray, *, x: int, y: int, **options: object) -> None:
        layer = np.zeros((128 + 400, 128 + 400))
        layer[y + 200 : y + 200 + ink.shape[0], x + 200 : x + 200 + ink.shape[1]] = ink
        pasted.append(layer[200:328, 200:328] > 0.3)
        paste_ink(canvas, ink, x=x, y=y, **options)

    monkeypatch.setattr(digits_scene, "paste_ink", record)
    sources, photos = load_sources("val"), set()
    for seed in range(12):
        pasted.clear()
        image, segments = render_panoptic(np.random.default_rng(seed), sources)
        assert image.shape == (128, 128, 3) and image.dtype == np.uint8
        assert (sum(segment.mask.astype(int) for segment in segments) == 1).all()
        things, stuff = segments[: len(pasted)], segments[len(pasted) :]
        for number, (segment, ink) in enumerate(zip(things, pasted, strict=True)):
            assert segment.label < 10
            assert (segment.mask == (ink & ~np.any([*pasted[number + 1 :], ink & False], axis=0))).all()
        photos.add(tuple(segment.label for segment in stuff))
        for segment in segments:
            x, y, width, height = segment.box
            inside = segment.mask[y : y + height, x : x + width]
            assert inside.sum() == segment.mask.sum() and inside[0].any() and inside[-1].any()
            assert inside[:, 0].any() and inside[:, -1].any()
    assert photos == {(10,), (11,), (10, 11)}


def test_files_agree(cache: Path) -> None:
    """The picture of segments, panoptic.json, and the run-length masks of instances.json."""
    folder = ensure_digits_panoptic(SPEC, cache)
    panoptic, instances = (json.loads((folder / f"{name}.json").read_text()) for name in ("panoptic", "instances"))
    assert [c["isthing"] for c in panoptic["categories"]] == [1] * 10 + [0] * 2
    assert panoptic["categories"][:10] == instances["categories"]
    for image, segments in zip(panoptic["images"], panoptic["annotations"], strict=True):
        colours = np.asarray(Image.open(folder / "panoptic" / segments["file_name"]))
        assert (colours[..., 1:] == 0).all()
        ids = {s["id"]: s for s in segments["segments_info"]}
        assert set(np.unique(colours[..., 0]).tolist()) == set(ids)
        assert all((colours[..., 0] == number).sum() == s["area"] for number, s in ids.items())
        objects = [a for a in instances["annotations"] if a["image_id"] == image["id"]]
        things = [s for s in ids.values() if s["category_id"] <= 10]
        assert len(objects) == len(things) >= 2
        for found, thing in zip(objects, things, strict=True):
            assert (mask_tools.decode(found["segmentation"]) == (colours[..., 0] == thing["id"])).all()
            assert (found["bbox"], found["area"], found["category_id"]) == (
                *(thing["bbox"], thing["area"]),
                thing["category_id"],
            )


def test_registered_data_sets_map_to_masks(cache: Path) -> None:
    register_digits_panoptic("for_tests", SPEC, cache)
    register_digits_panoptic("for_tests", SPEC, cache)  # a second time changes nothing
    masks, panoptic = "digits_masks_for_tests", "digits_panoptic_for_tests"
    with forgotten(masks), forgotten(panoptic):
        mapper = MaskMapper(augmentations=[], is_train=True)
        for things, everything in zip(load_dataset(masks), load_dataset(panoptic), strict=True):
            assert things["file_name"] == everything["file_name"]
            a, b = mapper(things)["instances"], mapper(everything)["instances"]
            assert (b.gt_masks.tensor[: len(a)] == a.gt_masks.tensor).all()
            assert (b.gt_masks.tensor.sum(0) == 1).all()
            assert b.gt_classes[: len(a)].tolist() == a.gt_classes.tolist() and b.gt_classes[len(a) :].min() >= 10
            assert (b.gt_masks.get_bounding_boxes().tensor == b.gt_boxes.tensor).all()
        metadata = MetadataCatalog.get(panoptic)
        assert metadata.stuff_dataset_id_to_contiguous_id == {11: 10, 12: 11}
        assert metadata.thing_classes[10:] == ["temple", "flower"]
    assert masks not in DatasetCatalog.list()
