"""The cap on the denoising queries of an image: what it costs, and who is told."""

import logging
from collections import Counter
from collections.abc import Iterator

import pytest
from detectron2.utils import logger as detectron2_logger
from detectron2.utils.events import EventStorage

from align_detr.lazy_config import load_config
from align_detr.modeling.decoder import blocked_pairs
from align_detr.modeling.queries import ContrastiveDenoisingQueries, DenoisingQueries
from support.denoising import memory_of, some_targets, source_of


def test_a_cap_that_costs_groups() -> None:
    """Of five groups of two objects three fit into 7 queries: their losses are divided by three times the objects."""
    dn, main = source_of(DenoisingQueries, groups=5, max_queries=7)(memory_of(1), None, some_targets(2))
    assert dn.content.shape[1] == 6 and dn.groups == 3 and dn.scale == 3.0 and len(dn.match) == 6
    seen = ~blocked_pairs([dn, main])
    assert [seen[2 * group, :6].tolist() for group in range(3)] == [
        [True] * 2 + [False] * 4,
        [False] * 2 + [True] * 2 + [False] * 2,
        [False] * 4 + [True] * 2,
    ]


def test_default_caps() -> None:
    assert source_of(DenoisingQueries).max_queries == 500
    assert source_of(ContrastiveDenoisingQueries).max_queries == 200
    assert source_of(ContrastiveDenoisingQueries, dn_number=300).max_queries == 600
    dn = source_of(ContrastiveDenoisingQueries)(memory_of(1), None, some_targets(300))[0]
    assert dn.content.shape[1] == 200 and len(dn.match) == 100


def test_numbers_are_logged() -> None:
    source = source_of(DenoisingQueries, groups=2, max_queries=3)
    with EventStorage() as storage:
        source(memory_of(2), None, some_targets(5, 1))
        assert storage.latest()["denoising_queries"][0] == 3 and storage.latest()["denoising_left_out"][0] == 2


class Lines(logging.Handler):
    """Handler that keeps what the denoising sources log, whatever other tests did to the loggers above."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelname, record.getMessage()))


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """Return the lines logged in a test; lines logged once per process are logged anew."""
    monkeypatch.setattr(detectron2_logger, "_LOG_COUNTER", Counter())
    logger, handler = logging.getLogger("align_detr.modeling.queries.denoising"), Lines()
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield handler.lines
    logger.removeHandler(handler)
    logger.setLevel(before)


@pytest.mark.parametrize(("cap", "room"), [(3, "1 object"), (5, "2 objects")])
def test_objects_without_a_place_are_told_once(cap: int, room: str, logged: list[tuple[str, str]]) -> None:
    source = source_of(ContrastiveDenoisingQueries, dn_number=1, max_queries=cap)
    source(memory_of(1), None, some_targets(1))
    assert logged == [("INFO", f"Denoising has at most {cap} queries per image (model.queries.max_queries).")]
    for _ in range(2):
        source(memory_of(1), None, some_targets(4))
    ((level, line),) = logged[1:]
    assert level == "WARNING" and line.startswith(
        f"Denoising has room for {room} per image (model.queries.max_queries={cap}): images with more take part with"
    )


def test_a_cap_below_the_pairs_that_are_asked_for_is_told(logged: list[tuple[str, str]]) -> None:
    source_of(ContrastiveDenoisingQueries, dn_number=100, max_queries=200)
    assert [level for level, _ in logged] == ["INFO"]
    source_of(ContrastiveDenoisingQueries, dn_number=101, max_queries=200)
    assert logged[-1] == (
        "WARNING",
        "model.queries.dn_number=101 asks for 202 denoising queries per image, but model.queries.max_queries=200 "
        "allows no more: raise it, or set it to null.",
    )


@pytest.mark.parametrize("name", ["dino/dino_r50_4scale_12ep.py", "quickstart/digits.py"])
def test_the_cap_is_a_key_of_the_configs(name: str) -> None:
    cfg = load_config(name, ["model.queries.max_queries=20"])
    assert cfg.model.queries.max_queries == 20 and load_config(name).model.queries.max_queries == 200
