"""One start of a run's processes, told apart from earlier ones that have used the same store."""

import time
import uuid

import torch.distributed as dist

from align_detr.errors import EnvironmentProblem

_LOOK = 0.02  # seconds


def name_round(store: dist.Store, rank: int, world_size: int, *, address: str, timeout: float) -> str:
    """Return a name that the processes of this start have in common, and no earlier start has.

    torchrun keeps its store when it starts processes again. In it are the addresses of those that are gone, which a
    process that is early would take for those of its peers. Process 0 makes the name. It may read greetings of
    processes that are gone and answers them as well; only living ones confirm. Raise EnvironmentProblem with the
    processes that do not come within `timeout` seconds.
    """
    until = time.monotonic() + timeout
    greeting = uuid.uuid4().hex
    if rank:
        return _greet(store, rank, greeting, until, f"{address} within {timeout:g} seconds")
    missing, answered = set(range(1, world_size)), set()
    while missing:
        for other in sorted(missing):
            if store.check([f"here/{greeting}/{other}"]):
                missing.discard(other)
            elif store.check([f"greeting/{other}"]):
                theirs = store.get(f"greeting/{other}").decode()
                if theirs not in answered:
                    answered.add(theirs)
                    store.set(f"answer/{theirs}", greeting)
        if missing and time.monotonic() > until:
            numbers = ", ".join(map(str, sorted(missing)))
            raise EnvironmentProblem(
                f"Process{'es' if len(missing) > 1 else ''} {numbers} of {world_size} did not come to {address} within "
                f"{timeout:g} seconds: check that all are started with the same numbers, and the firewall, or raise "
                "--dist-timeout."
            )
        time.sleep(_LOOK if missing else 0)
    return greeting


def _greet(store: dist.Store, rank: int, greeting: str, until: float, where: str) -> str:
    """Greet process 0, and return the name that it answers with."""
    store.set(f"greeting/{rank}", greeting)
    while not store.check([f"answer/{greeting}"]):
        if time.monotonic() > until:
            raise EnvironmentProblem(
                f"Process 0 did not come to {where}: check that it is started, and the firewall, or raise "
                "--dist-timeout."
            )
        time.sleep(_LOOK)
    name = store.get(f"answer/{greeting}").decode()
    store.set(f"here/{name}/{rank}", "")
    return name
