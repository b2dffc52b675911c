"""Lines of metrics.json: strict JSON whatever the numbers are."""

import json
import logging
import math

from detectron2.utils.events import EventStorage

from align_detr.engine.writers import MetricsWriter, ProgressPrinter, append_results, metrics_line
from align_detr.evaluation.figures import draw_curves


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


def test_curves_leave_out_what_is_no_number(tmp_path):
    rows = [
        {"iteration": 0, "total_loss": None},
        {"iteration": 1, "total_loss": 2.0, "bbox/AP": None},
        {"iteration": 2, "bbox/AP": 1.0},
    ]
    (tmp_path / "metrics.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    draw_curves(tmp_path / "metrics.json", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 0
