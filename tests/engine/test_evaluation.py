"""Evaluation within runs: what it reads is read before training, what it finds is written for every data set."""

import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from align_detr.evaluation import RESULTS_FILE

FUNCTION = """
from detectron2.data import DatasetCatalog, MetadataCatalog

def records():
    from align_detr.data import load_dataset

    keys = ("bbox", "bbox_mode", "category_id")
    return [
        {**record, "annotations": [{key: a[key] for key in keys} for a in record["annotations"]]}
        for record in load_dataset("tiny_val")
    ]

DatasetCatalog.pop("tiny_function", None)
DatasetCatalog.register("tiny_function", records)
MetadataCatalog.get("tiny_function").thing_classes = list(tiny_detector.CLASSES)
"""


@pytest.fixture
def with_function(tiny_run):
    """The tiny run; its config also registers the records of tiny_val by a function, without area and iscrowd."""
    with tiny_run.config.open("a") as config:
        config.write(FUNCTION)
    yield tiny_run
    DatasetCatalog.pop("tiny_function", None)
    MetadataCatalog.pop("tiny_function", None)


def refuse_constants(text):
    raise AssertionError(f"{text} is no JSON")


def strict_rows(run):
    lines = (run.output / "metrics.json").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse_constants) for line in lines]


def test_a_data_set_of_a_function_has_the_numbers_of_its_coco_file(with_function):
    """After the first epoch, at the end and by --eval-only."""
    assert with_function.train("train.eval_period=2", "train.max_iter=3") == 0
    assert with_function.train("--eval-only", "dataloader.test.dataset=tiny_function") == 0
    between, trained, again = (row for row in strict_rows(with_function) if "bbox/AP" in row)
    assert (between["iteration"], trained["iteration"], again["iteration"]) == (1, 3, 3)
    results = {key: value for key, value in trained.items() if key.startswith("bbox/")}
    assert results == {key: value for key, value in again.items() if key.startswith("bbox/")}
    assert results["bbox/APl"] is None, "no object is large, and JSON has no NaN"


def test_every_run_keeps_its_detections(tiny_run):
    """In COCO's results format, with the image and category ids of the file: one detection per image."""
    assert tiny_run.train("train.max_iter=1") == 0
    rows = json.loads((tiny_run.output / "inference" / RESULTS_FILE).read_text())
    assert [row["image_id"] for row in rows] == [1, 2, 3, 4] and {row["category_id"] for row in rows} <= {1, 2}
    assert all(len(row["bbox"]) == 4 and 0 <= row["score"] <= 1 for row in rows)


def test_several_test_sets_have_their_names(with_function, capsys):
    assert with_function.train("train.max_iter=1", "dataloader.test.dataset=[tiny_val,tiny_function]") == 0
    assert "Test data: tiny_val, tiny_function (8 images)" in capsys.readouterr().out
    row = strict_rows(with_function)[-1]
    assert row["tiny_val/bbox/AP"] == row["tiny_function/bbox/AP"] > 0 and "bbox/AP" not in row
    for name in ("tiny_val", "tiny_function"):
        assert (with_function.output / "inference" / name / RESULTS_FILE).is_file()


def test_what_evaluation_cannot_use_is_refused_before_training(tiny_run, capsys):
    """Before the model is built: a convolution of -5 channels is an error without a sentence."""
    for override, message in (
        ("dataloader.evaluator.dataset_name=tiny_vla", "'tiny_vla' is not registered"),
        ("+dataloader.evaluator.max_detections=0", "dataloader.evaluator.max_detections is 0"),
        ("dataloader.test.dataset=[tiny_val,tiny_val]", "names the data set 'tiny_val' more than once"),
    ):
        for mode in ([], ["--eval-only"]):
            assert tiny_run.train(*mode, "+model.channels=-5", override) == 2
            assert message in capsys.readouterr().err


def test_a_test_set_without_annotations_is_evaluated_without_ap(tiny_run, capsys):
    assert tiny_run.train("train.max_iter=1", "train.eval_period=0") == 0
    file = tiny_run.output.parent / "data" / "val.json"
    coco = json.loads(file.read_text())
    del coco["annotations"]
    file.write_text(json.dumps(coco))
    keep_image = tiny_run.config.parent / "keep_image.py"
    keep_image.write_text(tiny_run.config.read_text() + "dataloader['test'].mapper = tiny_detector.read_image\n")
    tiny_run.config = keep_image
    assert tiny_run.train("--eval-only") == 0
    assert "The data set 'tiny_val' has no annotations, so that there is no AP of it." in capsys.readouterr().out
    assert len(json.loads((tiny_run.output / "inference" / RESULTS_FILE).read_text())) == 4
    assert strict_rows(tiny_run)[-1] == {"iteration": 1}


def test_the_test_data_is_read_before_training_only(tiny_run):
    """Not at each evaluation: what happens to its file during a run changes nothing."""
    source = tiny_run.config.read_text()
    file = tiny_run.output.parent / "data" / "val.json"
    removing = f"""
class RemovingDetector(tiny_detector.TinyDetector):
    def forward(self, inputs):
        if self.training and self.seen == 0:
            Path({str(file)!r}).unlink()
            self.seen += 1
        return super().forward(inputs)
model = L(RemovingDetector)(num_classes=2)
"""
    tiny_run.config.write_text(source + removing)
    assert tiny_run.train("train.max_iter=4") == 0
    assert sum("bbox/AP" in row for row in strict_rows(tiny_run)) == 2
    assert not file.exists()


def test_the_validation_loss_of_every_second_epoch(tiny_run, capsys):
    """It is in metrics.json and on the terminal, and the least of it is the best, also of weights that average."""
    settings = ["train.epochs=4", "train.eval_epochs=2", "train.validation_loss=True", "train.best=val_loss"]
    assert tiny_run.train(*settings, "train.ema.enabled=True") == 0
    rows = [row for row in strict_rows(tiny_run) if "val_loss" in row]
    assert [row["iteration"] for row in rows] == [3, 8]
    assert all(row["val_loss"] == pytest.approx(row["val_loss_class"] + row["val_loss_bbox"]) for row in rows)
    assert all("bbox/AP" in row for row in rows)
    best = min(rows, key=lambda row: row["val_loss"])
    out = capsys.readouterr().out
    assert f"Validation loss: {best['val_loss']:.4g} (class " in out and "copypaste: val" not in out
    assert f"Best val_loss so far: {best['val_loss']:.4g} after iteration {(best['iteration'] + 1) // 2 * 2}" in out
    assert tiny_run.train("--eval-only", "train.validation_loss=True") == 0
    assert strict_rows(tiny_run)[-1]["val_loss"] == pytest.approx(rows[-1]["val_loss"], rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["train.best=val_loss"], "train.best=val_loss is a validation loss: set train.validation_loss=True"),
        (["train.eval_epochs=2", "train.eval_period=3"], "both say when to evaluate"),
        (["train.eval_epochs=0"], "train.eval_epochs=0 must be a number above 0"),
    ],
)
def test_settings_that_do_not_go_together(tiny_run, capsys, settings, message):
    assert tiny_run.train(*settings) == 2
    assert message in "".join(capsys.readouterr())


def test_a_run_leaves_pictures_and_curves(tiny_run):
    """In its folder, and the pictures of both evaluations in tensorboard."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert tiny_run.train("train.max_iter=2", "train.eval_period=1", "train.pictures=2") == 0
    assert {path.name for path in (tiny_run.output / "pictures").iterdir()} == {"val_0_1.png", "val_1_2.png"}
    assert (tiny_run.output / "curves.png").stat().st_size > 0
    events = EventAccumulator(str(tiny_run.output)).Reload()
    assert events.Tags()["images"] == ["pictures/val_0_1", "pictures/val_1_2"]
    assert [image.step for image in events.Images("pictures/val_0_1")] == [0, 2]
