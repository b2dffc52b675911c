"""Lines of metrics.json: strict JSON whatever the numbers are."""

import json
import logging
import math

from detectron2.utils.events import EventStorage

from align_detr.engine.writers import MetricsWriter, ProgressPrinter, append_results, metrics_line
from align_detr.evaluation.figures import draw_curves
from align_detr.modeling.loss_sums import describe_sums, sums_by_set


def test_numbers_that_are_not_finite_become_null():
    line = metrics_line({"b": math.nan, "a": 1.5, "c": math.inf, "iteration": 3})
    assert line == '{"a": 1.5, "b": null, "c": null, "iteration": 3}\n'


def test_each_number_is_written_once_at_its_iteration(tmp_path):
    """Numbers with a smoothing hint are medians of what was stored: of 1, 5 and 2 after the third."""
    file = tmp_path / "metrics.json"
    writer = MetricsWriter(file)
    with EventStorage() as storage:
        for loss in (1.0, 5.0, 2.0):
            storage.put_scalar("loss", loss)
            if storage.iter == 1:
                storage.put_scalar("bbox/APs", math.nan, smoothing_hint=False)
            writer.write()
            writer.write()
            storage.step()
    writer.close()
    append_results(str(tmp_path), 3, {"bbox": {"APs": math.nan, "AP": 12.5}})
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert rows == [
        {"iteration": 0, "loss": 1.0},
        {"iteration": 1, "loss": 3.0, "bbox/APs": None},
        {"iteration": 2, "loss": 2.0},
        {"iteration": 3, "bbox/APs": None, "bbox/AP": 12.5},
    ]


def test_no_progress_line_follows_the_last_iteration(caplog):
    """Also where training ends before `max_iter`: the writers run once more, at the number of iterations done."""
    printer = ProgressPrinter(max_iter=10, iterations_per_epoch=2, device="cpu")
    with EventStorage() as storage, caplog.at_level(logging.INFO):
        for _ in range(2):
            storage.put_scalar("total_loss", 1.0)
            printer.write()
            storage.step()
        printer.write()
    assert [record.getMessage()[:10] for record in caplog.records] == ["iter 1/10 ", "iter 2/10 "]


def test_the_progress_line_has_sums_and_speed(monkeypatch):
    """Medians of two steps, of which the second has twice the losses: 1.5 times 1 + 2 + 3 for the class losses."""
    printer = ProgressPrinter(max_iter=10, iterations_per_epoch=4, device="cpu", total_batch=8)
    monkeypatch.setattr(ProgressPrinter, "_memory", lambda self: 512.4)
    losses = {"loss_class": 1.0, "loss_class_0": 2.0, "loss_class_1": 3.0, "loss_bbox": 0.5, "loss_class_dn_0": 4.0}
    losses = {**losses, "loss_class_dn": 4.0, "loss_class_enc": 7.0}
    with EventStorage() as storage:
        for factor in (1, 2):
            storage.put_scalars(**{name: factor * value for name, value in losses.items()}, total_loss=factor * 21.5)
            storage.put_scalars(time=2.0, data_time=0.25, positives_per_object=3.5)
            storage.step()
        storage.iter = 1
        line = printer.line(storage)
    assert line == (
        "iter 2/10  epoch 0.50  loss 32.25 (main: class 9 bbox 0.75 | dn: class 12 | enc: class 10.5)  "
        "positives per object 3.5  data 0.250 s  step 2.000 s  4 images/s  left 0:00:16  mem 512 MiB"
    )


def test_memory_is_that_of_the_process():
    """A process with PyTorch has more than 50 MiB, and less than a terabyte."""
    assert 50 < ProgressPrinter(max_iter=1, iterations_per_epoch=1, device="cpu")._memory() < 2**20


def test_a_loss_whose_name_begins_as_another():
    """It is a loss of its own in every set; a set that the library does not make counts once it was logged."""
    losses = {"loss_class": 1.0, "loss_class_error_0": 2.0, "loss_class_dn": 3.0, "loss_class_error_dn": 4.0}
    sums = {"main": {"class": 1.0, "class_error": 2.0}, "dn": {"class": 3.0, "class_error": 4.0}}
    assert sums_by_set(losses) == sums
    assert sums_by_set({"loss_class_far_1": 5.0}) == {"main": {"class_far": 5.0}}
    assert sums_by_set({"loss_class_far_1": 5.0, **losses}, ["far"]) == {**sums, "far": {"class": 5.0}}
    printer = ProgressPrinter(max_iter=2, iterations_per_epoch=1, device="cpu")
    with EventStorage() as storage:
        storage.put_scalars(loss_class=1.0, loss_class_far=2.0, total_loss=3.0)
        assert "loss 3 (class 1 class_far 2)" in printer.line(storage)
        storage.put_scalar("positives_per_object_far", 1.0)
        assert "loss 3 (main: class 1 | far: class 2)" in printer.line(storage)


def test_losses_of_other_detectors():
    """detectron2's have no sets; nothing is left out of the sums."""
    losses = {"loss_cls": 1.0, "loss_box_reg": 2.0, "loss_rpn_cls": 3.0, "loss_rpn_loc": 4.0}
    assert sums_by_set(losses) == {"main": {"cls": 1.0, "box_reg": 2.0, "rpn_cls": 3.0, "rpn_loc": 4.0}}
    assert describe_sums({}, 1.0) == "1" and sums_by_set({}) == {}


def test_curves_leave_out_what_is_no_number(tmp_path):
    rows = [
        {"iteration": 0, "total_loss": None},
        {"iteration": 1, "total_loss": 2.0, "bbox/AP": None},
        {"iteration": 2, "bbox/AP": 1.0},
    ]
    (tmp_path / "metrics.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    draw_curves(tmp_path / "metrics.json", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 0
