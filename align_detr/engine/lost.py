"""Errors of torch.distributed as sentences: a run that does not come together, and processes that are lost later."""

import os
import re
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from align_detr.errors import AlignDetrError, EnvironmentProblem

_LOST = re.compile(
    r"closed by peer|reset by peer|[Bb]roken pipe|[Tt]imed out|timeout|likely closed|remote process exited|No route"
)
_WAITED = re.compile(r"[Tt]imed out|timeout")
_AGAIN = "start all again with --resume, which goes on after the last checkpoint"


class LostContact(EnvironmentProblem):
    """A process that no longer hears the others of its run."""


class ProcessDied(EnvironmentProblem):
    """A process of a run that has ended without an error of its own, as by a signal."""


@dataclass(frozen=True)
class Peer:
    """A process of the run: its machine's name, its number there, and its machine's address."""

    host: str
    pid: int
    address: str

    @staticmethod
    def here(master: str) -> "Peer":
        """Return this process, with the address from which `master` is reached."""
        return Peer(socket.gethostname(), os.getpid(), address_toward(master))


def address_toward(host: str) -> str:
    """Return the address of the interface that leads to `host`, or "" if none is known; nothing is sent."""
    try:
        kind, _, _, _, target = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(kind, socket.SOCK_DGRAM) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    except OSError:
        return ""


def interface_of(address: str) -> str:
    """Return the network interface that has an IPv4 address, or "" if none is found (it is looked for on Linux)."""
    try:
        import fcntl

        names = [name for _, name in socket.if_nameindex()]
    except (ImportError, OSError):
        return ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for name in names:
            try:
                found = fcntl.ioctl(probe, 0x8915, name.encode()[:15].ljust(256, b"\0"))  # SIOCGIFADDR
            except OSError:  # an interface without such an address
                continue
            if socket.inet_ntoa(found[20:24]) == address:
                return name
    return ""


def describe_no_start(error: Exception, master: str, world_size: int, timeout: float) -> str | None:
    """Return a sentence on a process group that is not made, or None for an error of another kind."""
    text = str(error)
    if isinstance(error, AlignDetrError):
        return None
    if "EADDRINUSE" in text:
        return (
            f"The port of {master} (MASTER_PORT) is in use on this machine: give all machines another port, or end "
            "what uses this one."
        )
    if "connectFullMesh" in text:
        return (
            f"The processes have met at {master}, but do not reach each other ({_first_line(text)}): check the "
            "firewall, or set GLOO_SOCKET_IFNAME (on CUDA also NCCL_SOCKET_IFNAME) to the network interface that "
            "joins the machines."
        )
    if _LOST.search(text):
        return (
            f"The {world_size} processes of the run did not all meet at {master} within {timeout:g} seconds "
            f"({_first_line(text)}): check that all are started with the same numbers, address and firewall, or raise "
            "--dist-timeout."
        )
    return None


def describe_lost(error: BaseException, rank: int, peers: Sequence[Peer], timeout: float) -> str | None:
    """Return a sentence on contact that is lost, with the processes that are gone as far as known, or None.

    None stands for an error of another kind.
    """
    text = str(error)
    if not isinstance(error, RuntimeError) or isinstance(error, AlignDetrError) or len(peers) < 2:
        return None
    if not _LOST.search(text):
        return None
    if _WAITED.search(text):
        return (
            f"Process {rank} has waited for the others for {timeout:g} seconds ({_first_line(text)}): find the one "
            f"that hangs, or raise --dist-timeout, then {_AGAIN}."
        )
    return f"Process {rank} has lost {_gone(text, rank, peers)} ({_first_line(text)}): {_AGAIN}."


def describe_exit(rank: int, host: str, code: int) -> str:
    """Return a sentence on a process that has ended with an exit code of multiprocessing: negative for a signal."""
    if code >= 0:
        how, hint = f"has exited with status {code}, without an error", f"look at its output above, then {_AGAIN}"
    else:
        known = {each.value: each.name for each in signal.Signals}
        how, hint = f"was killed by {known.get(-code, f'signal {-code}')}", _AGAIN
        if -code == getattr(signal, "SIGKILL", None):
            hint = f"the system does that when memory is short; {_AGAIN}"
    return f"Process {rank} on {host} {how}: {hint}."


def describe_machine(problem: str) -> str:
    """Return a sentence on a machine that is gone, with the remedy."""
    return problem if _AGAIN in problem else f"{problem.rstrip('.')}: {_AGAIN}."


def _gone(text: str, rank: int, peers: Sequence[Peer]) -> str:
    """Return what is known of the processes that are gone: dead ones of this machine, else those of a lost address."""
    here = peers[rank].host
    dead = [i for i, peer in enumerate(peers) if i != rank and peer.host == here and _is_dead(peer.pid)]
    if dead:
        return f"{_processes(dead)} on {here}"
    there = [i for i, peer in enumerate(peers) if peer.host != here and peer.address and f"[{peer.address}]" in text]
    if there:
        return f"{'one of ' if len(there) > 1 else ''}{_processes(there)} on {peers[there[0]].host}"
    return "another process"


def _processes(ranks: Sequence[int]) -> str:
    return f"process{'es' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"


def _is_dead(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat")
        return state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z"
    except ProcessLookupError:
        return True
    except OSError:
        return False


def _first_line(text: str) -> str:
    """Return the first sentence of torch's error, without the place in its sources that it begins with."""
    line = (text.strip().splitlines() or [""])[0]
    return re.sub(r"^\[[^\]]*\.\w+:\d+\] *", "", line).partition(". ")[0].rstrip(".")
