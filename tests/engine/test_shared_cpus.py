"""Threads beside other programs: how many there are, and when they sleep while they wait."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from align_detr.data import build
from align_detr.engine import shared_cpus
from align_detr.engine.shared_cpus import COUNTS, WAITS, IdleTeam, Watch, limit_threads, sharing_cpus

TASKS = Path("/proc/self/task")


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*COUNTS, *WAITS):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Let PyTorch compute in two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def watches() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name in ("watch_cpus", "idle_team")]


@pytest.mark.skipif(not TASKS.is_dir(), reason="threads are counted in Linux's /proc")
def test_an_idle_team_has_threads_of_its_own(two_threads: None) -> None:
    """The Python thread and a second one of OpenMP: with the two that compute, more than two CPUs have."""
    torch.zeros(1 << 17).add_(1)
    before = len([*TASKS.iterdir()])
    team = IdleTeam()
    assert len([*TASKS.iterdir()]) == before + 2
    team.end()
    assert not watches()


def test_the_idle_team_follows_the_load(two_threads: None, caplog: pytest.LogCaptureFixture) -> None:
    """Four threads want four CPUs: with 3.5 they sleep, until there are 3.9; the first time is told, others are not."""
    watch = Watch(4)
    caplog.set_level(logging.INFO, logger=shared_cpus.__name__)
    kept = []
    for available in (4.0, 3.7, 3.5, 3.7, 2.0, 3.9, 3.7, 1.0, 4.0):
        watch.decide(available)
        kept.append(watch.team is not None)
    assert kept == [False, False, True, True, True, False, False, True, False]
    (told,) = caplog.messages
    assert told.startswith(
        "Other programs, or workers that read data, leave 3.5 CPUs to the 4 threads of this process, which now sleep"
    )


def test_the_watch_ends_with_the_block(two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_cpus, "idle_seconds", lambda cpus: 0.0)
    with sharing_cpus():
        assert watches() == ["watch_cpus"]
    assert not watches()


@pytest.mark.parametrize("variable", WAITS)
def test_a_way_to_wait_that_the_environment_names_stays(
    two_threads: None, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    with sharing_cpus():
        assert not watches()


def test_nothing_to_watch(two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for one thread, and without Linux's counters nothing is known of the load."""
    monkeypatch.setattr(shared_cpus, "idle_seconds", lambda cpus: None)
    with sharing_cpus():
        assert not watches()
    torch.set_num_threads(1)
    monkeypatch.setattr(shared_cpus, "idle_seconds", lambda cpus: 0.0)
    with sharing_cpus():
        assert not watches()


@pytest.mark.parametrize(("cpus", "processes", "expected"), [(1, 1, 1), (2, 2, 1), (2, 3, 1), (2, 1, 2), (64, 1, 2)])
def test_threads_follow_the_cpus(
    two_threads: None, monkeypatch: pytest.MonkeyPatch, cpus: int, processes: int, expected: int
) -> None:
    """Processes share the CPUs; PyTorch's number is never raised, and OMP_NUM_THREADS wins."""
    monkeypatch.setattr(shared_cpus, "usable_cpus", lambda: cpus)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    limit_threads(processes)
    assert torch.get_num_threads() == 2
    monkeypatch.delenv("OMP_NUM_THREADS")
    limit_threads(processes)
    assert torch.get_num_threads() == expected


def test_workers_follow_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "usable_cpus", lambda: 3)
    assert [build._check_workers("train", number) for number in (None, 0, 2, 3, 8)] == [0, 0, 2, 3, 3]
