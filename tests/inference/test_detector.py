"""The three-line API: images in any form, detections in their pixels."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from detectron2.structures import Instances
from omegaconf import OmegaConf
from PIL import Image
from torch.testing import assert_close

import align_detr
from align_detr import model_zoo
from align_detr.checkpoint.contents import read_weights
from align_detr.detector import Detector
from align_detr.engine.class_names import TrainedConfig
from align_detr.errors import AlignDetrError, ConfigError, DatasetError, EnvironmentProblem
from align_detr.inference import Detections
from align_detr.inference.building import classes_of
from align_detr.inference.configs import training_config
from align_detr.lazy_config import load_config
from align_detr.shipped import SHIPPED, shipped_weights

from .conftest import CLASSES, NAME, pixels, saved, small_config


def same(one: Detections, other: Detections) -> bool:
    return (
        one.image_size == other.image_size
        and torch.equal(one.scores, other.scores)
        and torch.equal(one.pred_classes, other.pred_classes)
        and torch.equal(one.pred_boxes.tensor, other.pred_boxes.tensor)
    )


def test_an_image_in_any_form_gives_the_same(detector: Detector, tmp_path: Path) -> None:
    """Path, PIL image, RGB and BGR array, tensor of bytes and of floats."""
    image = pixels(60, 80)
    path = tmp_path / "photo.png"
    Image.fromarray(image).save(path)
    expected = detector.predict(path)
    tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)
    for form in (str(path), Image.fromarray(image), image, tensor, tensor / 255, image.astype(np.float32) / 255):
        assert same(detector.predict(form), expected)
    assert same(detector.predict(image[..., ::-1], channels="BGR"), expected)
    assert not same(detector.predict(image[..., ::-1]), expected)
    assert expected.file_name == str(path) and detector.predict(image).file_name is None
    assert len(expected) == 36 and expected.image_size == (60, 80)  # 12 queries of 3 classes: no threshold


def test_an_image_of_any_mode_is_read_as_it_is_shown(detector: Detector, tmp_path: Path) -> None:
    grey = pixels(60, 80)[..., 0]
    expected = detector.predict(np.repeat(grey[..., None], 3, axis=2))
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    forms = [grey, grey[..., None], Image.fromarray(grey), deep, grey.astype(np.uint16) * np.uint16(257)]
    deep.save(tmp_path / "deep.png")
    Image.fromarray(grey).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(grey).convert("RGBA").save(tmp_path / "alpha.png")
    turned, exif = Image.fromarray(np.rot90(grey)), Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    for form in (*forms, *sorted(tmp_path.iterdir())):
        assert same(detector.predict(form), expected)


def test_detections_are_in_the_pixels_of_the_image(detector: Detector) -> None:
    """Those of the model on the image that Pillow resizes to a short side of 64, times 60/64."""
    image = pixels(60, 90)
    resized = torch.from_numpy(np.array(Image.fromarray(image).resize((96, 64), Image.Resampling.BILINEAR)))
    with torch.no_grad():
        (expected,) = detector.model([{"image": resized.permute(2, 0, 1)}])
    found = detector.predict(image)
    assert torch.equal(found.scores, expected["instances"].scores)
    assert_close(found.pred_boxes.tensor, expected["instances"].pred_boxes.tensor * 60 / 64)


def test_several_images_give_a_list_in_their_order(detector: Detector, photos: Path) -> None:
    """A folder's with those of its subfolders; a batch finds what the images have alone."""
    alone = [detector.predict(photos / name) for name in ("a.png", "b.png", "more/a.png")]
    found = detector.predict(photos)
    assert isinstance(found, list) and all(map(same, found, alone))
    assert [x.file_name for x in found] == [str(photos / name) for name in ("a.png", "b.png", "more/a.png")]
    for one, other in zip(detector.predict(photos, batch_size=3), alone, strict=True):
        assert_close(one.scores, other.scores, atol=1e-6, rtol=0)
        assert_close(one.pred_boxes.tensor, other.pred_boxes.tensor, atol=1e-3, rtol=0)
    assert len(detector.predict([photos / "a.png", pixels(60, 80)])) == 2 and detector.predict([]) == []


def test_a_stream_reads_no_more_than_a_batch(detector: Detector, photos: Path) -> None:
    """And leaves out what cannot be read if it is told what to do with it."""
    taken = []

    def images() -> Iterator[np.ndarray]:
        for k in range(5):
            taken.append(k)
            yield pixels(60, 80, seed=k)

    stream = detector.predict(images(), batch_size=2)
    assert taken == []
    next(stream)
    assert taken == [0, 1]
    assert len(list(stream)) == 4
    (photos / "aa.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"aa.png cannot be read \(it is in no image format .* replace the file\."):
        detector.predict(photos)
    errors: list[DatasetError] = []
    assert len(list(detector.stream([photos, photos / "absent.jpg"], on_error=errors.append))) == 3
    assert "aa.png cannot" in str(errors[0]) and "absent.jpg does not exist: correct its path." in str(errors[1])


def test_what_is_asked_for_is_returned_best_first(detector: Detector) -> None:
    found = detector.predict(pixels(60, 80))
    assert torch.equal(found.scores, found.scores.sort(descending=True).values)
    assert same(detector.predict(pixels(60, 80), top_k=4), found[:4])
    limit = float(found.scores[9])
    assert len(detector.predict(pixels(60, 80), threshold=limit)) == int((found.scores >= limit).sum()) < 36


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("http://host/a.jpg", {}, "is a URL, and nothing is fetched here: download the file"),
        (Path("https://host/a.jpg"), {}, "is a URL"),
        ("", {}, "The path of an image is empty"),
        (io.StringIO("text"), {}, "gives text instead of an image's bytes: open it with mode 'rb'"),
        (b"no image", {}, r"The image in memory cannot be read \(it is in no image format"),
        (
            Image.fromarray(np.zeros((8, 8), np.float32)),
            {},
            "The image in memory holds floats.*predict with white_l",
        ),
        (np.zeros((8, 8, 3), np.uint8), {"threshold": "0.5"}, "threshold is '0.5', but must lie in"),
        (np.zeros((8, 8, 3), np.uint8), {"threshold": True}, "threshold is True, but must lie in"),
        (np.zeros((8, 8, 3), np.uint8), {"top_k": 2.5}, "top_k is 2.5, but must be a whole number"),
        (np.zeros((8, 8, 3), np.uint8), {"batch_size": "4"}, "batch_size is '4', but must be a whole number"),
        (np.zeros((8, 8, 3), np.uint8), {"flip": 1}, "flip is 1, but must be True or False"),
        (np.zeros((8, 8, 3), np.uint8), {"sides": "640"}, "sides is '640', but must be a whole number"),
        (np.zeros((8, 8, 3), np.uint8), {"sides": 640.0}, "sides is 640.0, but must be a whole number"),
        (
            np.zeros((8, 8, 3), np.uint8),
            {"sides": 100_000},
            "of which 100000 is above 4096 pixels: name one",
        ),
        (np.zeros((8, 8, 3), np.uint8), {"white_level": 0}, "white_level is 0, but must be a positive number"),
        (17, {}, "A int is no source of images"),
        ([None], {}, "A NoneType is no source of images"),
        (torch.zeros(1, 3, 8, 8), {}, r"is a batch: pass a list of its images, list\(tensor\)"),
        (torch.zeros(8, 8, 3), {}, r"is no image of shape \(3, H, W\)"),
        (np.zeros((3, 8, 8), np.uint8), {}, r"pass \(H, W, 3\) in RGB.* as image.transpose\(1, 2, 0\)"),
        (np.full((8, 8, 3), 200.0), {}, "holds floats from 200 to 200, but floats are read as 0 to 1"),
        (np.full((8, 8, 3), np.nan), {}, "holds floats from nan to nan"),
        (np.full((8, 8, 3), 7, np.int32), {}, "holds int32 from 7 to 7, whose white is not known"),
        (np.zeros((8, 8, 3), np.uint8), {"channels": "RBG"}, "channels is 'RBG', but must be one of RGB, BGR"),
        (np.zeros((8, 8, 3), np.uint8), {"threshold": 30}, r"threshold is 30, but must lie in \[0, 1\]"),
        (np.zeros((8, 8, 3), np.uint8), {"top_k": 301}, "top_k is 301, but the model gives at most 300"),
        (np.zeros((8, 8, 3), np.uint8), {"batch_size": 0}, "batch_size is 0, but must be a whole number of at least 1"),
        (np.zeros((8, 8, 3), np.uint8), {"sides": []}, r"sides is \[\]: name one or several short sides"),
        (np.zeros((8, 8, 3), np.uint8), {"nms": 1.5}, r"nms is 1.5, but must lie in \[0, 1\]: set it to an IoU"),
        (np.zeros((1, 900, 3), np.uint8), {}, "The image in memory with 900x1 pixels cannot be resized"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(
    detector: Detector, source: object, options: dict, message: str
) -> None:
    with pytest.raises((ConfigError, DatasetError), match=message):
        detector.predict(source, **options)


def test_a_folder_without_images_is_named(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no images: name one with images"):
        detector.predict(tmp_path)


def test_the_models_mode_stays(detector: Detector) -> None:
    """Each module's, and predictions are those of evaluation; gradients stay enabled."""
    expected = detector.predict(pixels(60, 80))
    detector.model.train()
    detector.model.backbone.eval()
    try:
        assert same(detector.predict(pixels(60, 80)), expected) and not expected.scores.requires_grad
        assert detector.model.training and not any(x.training for x in detector.model.backbone.modules())
        assert all(x.training for x in detector.model.decoder.modules()) and torch.is_grad_enabled()
    finally:
        detector.model.eval()


def test_test_time_augmentation_looks_several_times(detector: Detector, tmp_path: Path) -> None:
    """A number alone is another size; the flipped view of an image is that of the flipped image, turned back; several
    views find as many as one.
    """
    image = pixels(60, 80)
    cfg = small_config()
    cfg.dataloader.test.mapper.augmentations[0].update(short_edge_length=[96, 96], max_size=160)
    larger = Detector(cfg, weights=saved(detector, tmp_path), device="cpu")
    assert same(detector.predict(image, sides=96), larger.predict(image))

    plain, mirrored = detector.predict(image), detector.predict(np.ascontiguousarray(image[:, ::-1]))
    merged = detector.predict(image, flip=True, nms=0.99)
    best = plain if plain.scores[0] > mirrored.scores[0] else mirrored
    x0, y0, x1, y1 = best.pred_boxes.tensor[0].tolist()
    expected = [x0, y0, x1, y1] if best is plain else [80 - x1, y0, 80 - x0, y1]
    assert_close(merged.pred_boxes.tensor[0], torch.tensor(expected), atol=1e-4, rtol=0)
    both = detector.predict(image, flip=True, sides=[64, 80])
    assert len(both) == len(plain) and same(detector.predict(image, flip=True, sides=(64, 80)), both)


def test_detections_are_instances_that_know_their_classes(detector: Detector) -> None:
    found = detector.predict(pixels(60, 80), top_k=5)
    assert isinstance(found, Instances) and found.class_names == CLASSES == detector.class_names
    some = found[found.pred_classes == found.pred_classes[0]].to("cpu")
    assert isinstance(some, Detections) and set(some.labels) == {CLASSES[found.pred_classes[0]]}
    first = found.to_coco(image_id=7)[0]
    x0, y0, x1, y1 = found.pred_boxes.tensor[0].tolist()
    assert first["image_id"] == 7 and first["category_id"] == found.pred_classes[0] + 1
    assert first["bbox"] == pytest.approx([x0, y0, x1 - x0, y1 - y0]) and first["score"] == found.scores[0]


def test_a_detector_saves_itself(detector: Detector, tmp_path: Path) -> None:
    """Weights, config and class names, in one file."""
    path = detector.save(tmp_path / "new" / "cells.pth")
    again = Detector(weights=path, device="cpu")
    assert again.class_names == CLASSES and not again.model.training
    for options in ({}, {"flip": True, "sides": [64, 80]}):
        assert same(again.predict(pixels(60, 80), **options), detector.predict(pixels(60, 80), **options))
    other = small_config()
    other.model.head.num_classes = 80  # the file names three
    assert same(Detector(other, weights=path, device="cpu").predict(pixels(60, 80)), detector.predict(pixels(60, 80)))


def test_class_names_come_from_the_config_where_a_file_has_none() -> None:
    """COCO's with its category ids, of which some are unused: class 79 is category 90."""
    cfg = model_zoo.get_config(NAME)
    coco = classes_of(cfg, 80, None)
    assert coco.names[0] == "person" and coco.category_id(79) == 90
    assert list(classes_of(cfg, 3, None).names) == ["0", "1", "2"]
    cfg.train.class_names = CLASSES
    assert list(classes_of(cfg, 3, None).names) == CLASSES
    assert list(classes_of(cfg, 3, ["a", "b", "c"]).names) == ["a", "b", "c"]
    assert classes_of(cfg, 3, ["a", "b", "c"]).category_id(2) == 3
    with pytest.raises(ConfigError, match="The weights name 2 classes, but the config's model has 3"):
        classes_of(cfg, 3, ["a", "b"])


def test_a_detector_without_config_or_with_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="A Detector needs a config or weights"):
        Detector()
    with pytest.raises(ConfigError, match="There is no checkpoint nowhere.pth"):
        Detector(weights="nowhere.pth")
    with pytest.raises(
        ConfigError, match="does not hold the config of its training, and no config.yaml is beside it: pass one"
    ):
        torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "bare.pth")
        Detector(weights=tmp_path / "bare.pth")
    assert align_detr.Detector is Detector


def test_a_config_may_hold_a_model_alone(detector: Detector, tmp_path: Path) -> None:
    """What training needs beside it is that of the default config; a config without a model is refused."""
    alone = OmegaConf.create({"model": small_config().model}, flags={"allow_objects": True})
    torch.save(detector.model.state_dict(), tmp_path / "bare.pth")
    found = Detector(alone, weights=tmp_path / "bare.pth", device="cpu").predict(pixels(60, 80), sides=64)
    assert found.class_names == ["0", "1", "2"] and len(found) == 36
    assert set(training_config(alone)) == {"model", "optimizer", "lr_multiplier", "train", "dataloader"}
    with pytest.raises(ConfigError, match="The config has no node 'model': pass a whole config"):
        Detector(OmegaConf.create({"head": 1}))


def test_the_detector_that_comes_with_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """It finds nothing in a grey image; a file that is missing is named with the remedy."""
    digits = Detector("digits", device="cpu")
    assert len(digits.class_names) == 10 and digits.device.type == "cpu"
    assert len(digits.predict(np.full((96, 128), 127, np.uint8), threshold=0.5)) == 0
    assert digits.test_view.views()[0].image(pixels(900, 1200), "photo").shape == (3, 128, 171)  # as those it knows
    monkeypatch.setitem(SHIPPED, "letters", "letters.pth")
    with pytest.raises(ConfigError, match=r"'letters' should come with the package, but .*letters\.pth does not exist"):
        Detector("letters")


def test_a_mapper_without_augmentations_leaves_images_as_they_are(
    detector: Detector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = small_config()
    cfg.dataloader.test.mapper = None
    unsized = Detector(cfg, weights=saved(detector, tmp_path), device="cpu")
    assert "images go into the model in their own size" in caplog.text
    assert len(unsized.predict(pixels(40, 50))) > 0


def test_a_detector_without_weights_does_not_predict() -> None:
    fresh = Detector(small_config(), device="cpu")
    for use in (fresh.predict, fresh.stream, fresh.evaluate):
        with pytest.raises(ConfigError, match=r"The detector has no weights.*: pass weights=FILE, or train it first"):
            use(pixels(60, 80))


def test_bytes_and_open_files_are_images(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(pixels(60, 80)).save(path)
    expected = detector.predict(path)
    assert same(detector.predict(path.read_bytes()), expected)
    assert same(detector.predict(io.BytesIO(path.read_bytes())), expected)
    with path.open("rb") as file:
        (found,) = detector.stream([file])
    assert same(found, expected)
    assert np.array_equal(np.asarray(found.draw(threshold=1)), pixels(60, 80))


def test_what_was_found_in_an_array_is_drawn_on_what_it_held(detector: Detector) -> None:
    array = pixels(60, 80).copy()
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    both = detector.predict(array), detector.predict(tensor)
    array[:] = 0
    for found in both:
        assert np.array_equal(np.asarray(found.draw(threshold=1)), pixels(60, 80))
    with pytest.raises(ConfigError, match="threshold is 7, but must lie in"):
        both[0].draw(threshold=7)


def test_a_white_level_is_given_where_one_predicts(detector: Detector) -> None:
    """Levels of 12 bits, of which 4095 is white: those of 8 bits times 4095 / 255, to half a level."""
    grey = pixels(60, 80)[..., 0]
    deep = Image.fromarray((grey.astype(np.float32) * np.float32(4095 / 255)).round().astype(np.uint16))
    found = detector.predict(deep, white_level=4095)
    assert same(found, detector.predict(grey)) and not same(detector.predict(deep), found)
    assert np.array_equal(np.asarray(found.draw(threshold=1))[..., 0], grey)


def test_a_folder_names_the_videos_that_it_leaves_out(
    detector: Detector, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("clip.mp4", "phone.heic"):
        (photos / name).touch()
    assert len(detector.predict(photos)) == 3
    assert f"also holds 2 videos or photos of a format that is not read, such as {photos}/clip.mp4" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("output/x/weights.pth",), r"is named as weights are, and there is no such file: pass weights=FILE"),
        (("digit",), "There is no detector and no config named digit: did you mean 'digits'"),
        ((3,), "A int is no config"),
    ],
)
def test_a_name_that_is_no_config_has_a_hint(arguments: tuple, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Detector(*arguments)


def test_names_of_weights(detector: Detector, tmp_path: Path) -> None:
    """A file in the config's place is named, as is one beside a detector that has its own; "digits" is a file too."""
    path = saved(detector, tmp_path)
    with pytest.raises(ConfigError, match=r"is a file of weights, not a config: pass it as weights="):
        Detector(str(path))
    with pytest.raises(ConfigError, match="The detector 'digits' has weights of its own: leave them out, or pass"):
        Detector("digits", weights=path)
    assert len(Detector(weights="digits", device="cpu").class_names) == 10
    assert load_config("quickstart/digits.py", ["train.init_checkpoint=digits"]).train.init_checkpoint == str(
        shipped_weights("digits")
    )
    if not torch.cuda.is_available():
        with pytest.raises(EnvironmentProblem, match="device=cuda, but PyTorch finds no .*: set device=cpu"):
            Detector("digits", device="cuda")


def test_weights_that_are_not_finite_are_refused(detector: Detector, tmp_path: Path) -> None:
    path = saved(detector, tmp_path)
    content = torch.load(path, weights_only=True)
    name = "backbone.stem.conv1.weight"
    content["model"][name][0] = float("nan")
    torch.save(content, path)
    with pytest.raises(ConfigError, match=rf"{path} gives '{name}' a number that is NaN or infinite"):
        Detector(weights=path, device="cpu")


def test_what_cannot_be_saved_is_refused(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "file").touch()
    for path, message in (
        (tmp_path / "cells.npz", "cells.npz is no file that could be loaded again: name a file that ends with .pth"),
        (tmp_path / "cells", "ends with .pth"),
        (tmp_path / "folder.pth", "folder.pth is no file"),
        (tmp_path / "file" / "cells.pth", "cells.pth cannot be written .*: name another folder"),
    ):
        with pytest.raises(AlignDetrError, match=message):
            detector.save(path)


def test_a_file_of_weights_holds_no_paths_of_the_machine(detector: Detector, tmp_path: Path) -> None:
    cfg = small_config()
    cfg.train.update(init_checkpoint=str(tmp_path / "start.pth"), output_dir=str(tmp_path / "cells"))
    path = Detector(cfg, weights=saved(detector, tmp_path), device="cpu").save(tmp_path / "shared.pth")
    text = read_weights(path).config
    assert text is not None and str(tmp_path) not in text
    train = yaml.safe_load(text)["train"]
    assert train["init_checkpoint"] == "" and train["output_dir"] == "./output/cells"
    (tmp_path / "config.yaml").write_text(f"train:\n  output_dir: {tmp_path}/cells\n", encoding="utf-8")
    assert TrainedConfig(tmp_path / "config.yaml").text == "train:\n  output_dir: ./output/cells\n"
