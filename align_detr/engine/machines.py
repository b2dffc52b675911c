"""Several machines: their launchers meet, agree on the processes of the run, and know from each other who is gone.

The launcher of machine 0 listens at the address of the run, the others connect to it. The connections stay open while
the processes train: a line of JSON per second says that a machine is alive, another how its processes have ended.
Launchers only wait, so that a machine that is silent is gone, however long its processes compute.
"""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from align_detr.errors import AlignDetrError, EnvironmentProblem

SILENCE = 60.0  # seconds, or less if the run waits less for its processes
_BEAT = 1.0
LINGER = 5.0  # seconds for the others to read how this machine has ended
_LONGEST = 1 << 16  # bytes of a line


class MachineLost(EnvironmentProblem):
    """Another machine of the run is gone, or its processes have failed."""


@dataclass(frozen=True)
class Plan:
    """What a machine was started with: how many there are, its number, and its processes."""

    machines: int
    machine: int
    processes: int
    host: str

    @property
    def ranks(self) -> range:
        """Ranks of this machine's processes among all."""
        return range(self.machine * self.processes, (self.machine + 1) * self.processes)

    def disagreement(self, other: "Plan") -> str:
        """Return a sentence on how the plan of machine 0, which this is, and another's do not fit, or ""."""
        for option, mine, its in (
            ("--num-machines", self.machines, other.machines),
            ("--num-gpus", self.processes, other.processes),
        ):
            if mine != its:
                return (
                    f"Machine 0 ({self.host}) has {option} {mine}, but machine {other.machine} ({other.host}) has "
                    f"{option} {its}: give all machines the same."
                )
        return ""


class Line:
    """A connection to another launcher that carries lines of JSON."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._rest = b""

    def send(self, **message: Any) -> None:
        """Send a message; one that cannot be sent is dropped, as its reader then finds the end of the line."""
        with contextlib.suppress(OSError), self._lock:
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, timeout: float) -> dict[str, Any] | None:
        """Return the next message, or None at the end of the line; raise TimeoutError after silence.

        Raise ValueError for anything that is not such a message.
        """
        self._connection.settimeout(timeout)
        while b"\n" not in self._rest:
            try:
                received = self._connection.recv(4096)
            except TimeoutError:
                raise
            except OSError:
                return None
            if not received:
                return None
            self._rest += received
            if len(self._rest) > _LONGEST:
                raise ValueError("the line has no end")
        line, _, self._rest = self._rest.partition(b"\n")
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ValueError("the line holds no message")
        return message

    def close(self) -> None:
        """Say that nothing more is sent; what was sent arrives."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def drop(self) -> None:
        """Close the connection."""
        self._connection.close()


class Machines:
    """The machines of a run as the launcher of one of them sees the others. To be used as a context.

    `address` is where the processes of all machines find each other.
    """

    def __init__(self, plan: Plan, lines: Mapping[int, Line], hosts: list[str], silence: float) -> None:
        self.plan = plan
        self.hosts = hosts
        self._lines = lines
        self._silence = silence
        self._problems: dict[int, str] = {}
        self._left: set[int] = set()
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._read, args=item, daemon=True) for item in lines.items()]
        self._threads.append(threading.Thread(target=self._beat, daemon=True))

    def __enter__(self) -> "Machines":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Tell the others how this machine has ended, unless `end` has, and leave."""
        self.end("" if error is None else describe_error(error))

    def end(self, sentence: str) -> None:
        """Tell the others how this machine's processes have ended ("": well), and wait until they have read it."""
        if self._done.is_set():
            return
        self._done.set()
        for line in self._lines.values():
            line.send(machine=self.plan.machine, ended=sentence)
            line.close()
        until = time.monotonic() + LINGER
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        for line in self._lines.values():
            line.drop()

    def problem(self, wait: float = 0.0) -> str:
        """Return a sentence on the first other machine that is gone or has failed, or "" after `wait` seconds."""
        until = time.monotonic() + wait
        while not self._problems and time.monotonic() < until:
            time.sleep(0.05)
        return next(iter(self._problems.values()), "")

    def name(self, machine: int) -> str:
        """Return what errors call a machine."""
        return f"machine {machine} ({self.hosts[machine]})"

    def _beat(self) -> None:
        while not self._done.wait(_BEAT):
            for line in self._lines.values():
                line.send(alive=True)

    def _read(self, machine: int, line: Line) -> None:
        """Follow a line to its end; machine 0 passes on what it learns."""
        try:
            while (message := line.receive(self._silence)) is not None:
                if "ended" in message:
                    self._note(int(message["machine"]), str(message["ended"]))
        except (TimeoutError, ValueError):
            self._lose(machine, f"has been silent for {self._silence:g} seconds")
            return
        finally:
            line.close()  # the other waits for that before it leaves
        self._lose(machine, "is gone")

    def _lose(self, machine: int, how: str) -> None:
        if machine not in self._left and not self._done.is_set():
            self._note(machine, f"its launcher {how}.")

    def _note(self, machine: int, ended: str) -> None:
        self._left.add(machine)
        if ended:
            name = self.name(machine)
            self._problems.setdefault(machine, f"{name[0].upper()}{name[1:]} has ended: {ended}")
        for other, line in self._lines.items():
            if self.plan.machine == 0 and other != machine:
                line.send(machine=machine, ended=ended)


def describe_error(error: BaseException) -> str:
    """Return an error as one line, also one that holds the traceback of a process."""
    if isinstance(error, AlignDetrError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "Ctrl-C has ended it at once."
    lines = str(error).strip().splitlines()
    kind, _, sentence = lines[-1].partition(": ") if lines else ("", "", "")
    if sentence and kind.startswith("align_detr."):
        return sentence
    return lines[-1] if len(lines) > 1 else f"{type(error).__name__}: {error}"
