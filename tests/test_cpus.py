"""The CPUs to use, by Linux's files on control groups and on time, and by the affinity."""

import math
import os
from pathlib import Path

import pytest

from align_detr import cpus

V1 = {"cpu.cfs_quota_us": "150000\n", "cpu.cfs_period_us": "100000\n"}
UNLIMITED_V1 = {"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


CASES = {
    "none": ("0::/\n", {}, math.inf),
    "of version 2": ("0::/\n", {"cpu.max": "250000 100000\n"}, 2.5),
    "unlimited": ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
    "of its own group": ("0::/job/step\n", {"job/step/cpu.max": "50000 100000\n", "job/cpu.max": "max 100000\n"}, 0.5),
    "of the group above": ("0::/job/step\n", {"job/step/cpu.max": "max 100000\n", "job/cpu.max": "300000 100000\n"}, 3),
    "the least of all": ("0::/a/b\n", {"a/b/cpu.max": "4 1\n", "a/cpu.max": "2 1\n", "cpu.max": "3 1\n"}, 2),
    "in a container that sees the root": ("0::/kubepods/pod1\n", {"cpu.max": "200000 100000\n"}, 2),
    "of version 1": ("4:cpu,cpuacct:/job\n", {f"cpu,cpuacct/job/{k}": v for k, v in V1.items()}, 1.5),
    "of version 1, alone": ("4:cpu:/\n2:cpuset:/\n", {f"cpu/{k}": v for k, v in V1.items()}, 1.5),
    "of version 1, unlimited": ("4:cpu:/\n", {f"cpu/{k}": v for k, v in UNLIMITED_V1.items()}, math.inf),
    "of both versions": ("4:cpu:/\n0::/\n", {"unified/cpu.max": "1 1\n", **{f"cpu/{k}": v for k, v in V1.items()}}, 1),
    "of another form": ("0::/\nnonsense\n", {"cpu.max": "unlimited\n"}, math.inf),
    "zero": ("0::/\n", {"cpu.max": "0 100000\n"}, math.inf),
}


@pytest.mark.parametrize("case", CASES)
def test_quota(tmp_path: Path, case: str) -> None:
    """A quota is that of the group or of one above it, whichever is less."""
    membership, files, expected = CASES[case]
    write(tmp_path, {"membership": membership, **{f"groups/{name}": text for name, text in files.items()}})
    assert cpus.quota(tmp_path / "groups", tmp_path / "membership") == expected


def test_no_control_groups(tmp_path: Path) -> None:
    assert cpus.quota(tmp_path, tmp_path / "membership") == math.inf


@pytest.mark.parametrize(("quota", "allowed", "expected"), [(2.5, 8, 2), (0.5, 8, 1), (math.inf, 3, 3), (16, 3, 3)])
def test_usable_cpus(monkeypatch: pytest.MonkeyPatch, quota: float, allowed: int, expected: int) -> None:
    """The least of quota and affinity, a whole number from 1."""
    monkeypatch.setattr(cpus, "quota", lambda groups, membership: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(allowed)), raising=False)
    assert cpus.usable_cpus() == expected


def test_idle_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ticks of the idle CPUs, of which 100 are a second: 500 + 20 and 300 + 0 of CPUs 0 and 2."""
    monkeypatch.setattr(os, "sysconf", {"SC_CLK_TCK": 100}.__getitem__)
    lines = [
        "cpu 9 9 9 900 9",
        "cpu0 1 2 3 500 20 0",
        "cpu1 1 2 3 100 9 0",
        "cpu2 1 2 3 300 0 0",
        "intr 7",
        "cpu3 1 1 1 1 1",
    ]
    write(tmp_path, {"stat": "\n".join(lines)})
    assert cpus.idle_seconds({0, 2}, tmp_path / "stat") == 8.2
    assert cpus.idle_seconds({0, 5}, tmp_path / "stat") is None
    assert cpus.idle_seconds({0}, tmp_path / "absent") is None
