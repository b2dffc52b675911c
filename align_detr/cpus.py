"""The CPUs that this process may use: by its affinity and its container's quota, not the machine's count."""

import math
import os
from collections.abc import Collection
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")  # where Linux shows control groups: version 2 there or in unified/, version 1 in cpu/
_MEMBERSHIP = Path("/proc/self/cgroup")
_STATISTICS = Path("/proc/stat")


def usable_cpus() -> int:
    """Return how many CPUs this process may use, at least 1; of a quota of 2.5 CPUs two."""
    return max(1, math.floor(min(len(affinity()), quota(_GROUPS, _MEMBERSHIP))))


def affinity() -> Collection[int]:
    """Return the numbers of the CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return range(os.cpu_count() or 1)


def quota(groups: Path, membership: Path) -> float:
    """Return the CPUs' time per time that the control groups of this process allow, infinity if they do not limit it.

    `membership` names the group of each version, in which a container may see the root: groups above count as well.
    """
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return math.inf
    least = math.inf
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = ("cpu", "cpu,cpuacct") if controllers else ("", "unified")
        for root in (groups / mount for mount in mounts):
            group = root / name.strip("/")
            for folder in (group, *group.parents):
                if not folder.is_relative_to(root):
                    break
                least = min(least, _limit_v1(folder) if controllers else _limit_v2(folder))
    return least


def _limit_v2(folder: Path) -> float:
    """Return the limit in `cpu.max`: "<quota> <period>" in microseconds, or "max <period>"."""
    return _ratio(_words(folder / "cpu.max"))


def _limit_v1(folder: Path) -> float:
    """Return the limit in `cpu.cfs_quota_us`, -1 for none, and `cpu.cfs_period_us`."""
    return _ratio([*_words(folder / "cpu.cfs_quota_us"), *_words(folder / "cpu.cfs_period_us")])


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except OSError:
        return []


def _ratio(words: list[str]) -> float:
    """Return the quota over the period; infinity where there is none, or another form than Linux writes today."""
    if len(words) != 2 or not all(word.isdecimal() for word in words) or int(words[1]) == 0:
        return math.inf
    return int(words[0]) / int(words[1]) or math.inf


def idle_seconds(cpus: Collection[int], statistics: Path = _STATISTICS) -> float | None:
    """Return for how long `cpus` have had nothing to run since the start, in total; None where Linux does not say."""
    names = {f"cpu{number}" for number in cpus}
    ticks = 0
    try:
        with statistics.open(encoding="utf-8") as lines:
            for line in lines:
                name, *values = line.split()
                if not name.startswith("cpu"):
                    break  # after the CPUs' lines come long ones
                if name in names:
                    names.remove(name)
                    ticks += int(values[3]) + int(values[4])  # idle, and idle while a disk works
    except OSError:
        return None
    return None if names else ticks / os.sysconf("SC_CLK_TCK")
