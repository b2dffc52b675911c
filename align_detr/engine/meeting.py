"""The meeting of several machines' launchers: the processes that all agree on, and sentences for those who do not."""

import contextlib
import socket
import time
from collections.abc import Callable, Iterable, Iterator

from align_detr.engine.machines import LINGER, SILENCE, Line, Machines, Plan
from align_detr.errors import ConfigError, EnvironmentProblem


def read_address(url: str) -> tuple[str, int]:
    """Return host and port of tcp://HOST:PORT; raise ConfigError for anything else."""
    kind, _, rest = url.partition("://")
    host, _, port = rest.rpartition(":")
    if kind != "tcp" or not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ConfigError(f"--dist-url is {url}: set it to tcp://HOST:PORT, the address of machine 0.")
    return host.strip("[]"), int(port)


def meet(plan: Plan, url: str, timeout: float, open_port: Callable[[], int]) -> tuple[Machines, int]:
    """Return the machines of the run, when all have come, and the port that `open_port` has opened on machine 0.

    Wait at most `timeout` seconds. Raise ConfigError if the machines do not agree, EnvironmentProblem if one does not
    come or the port is in use.
    """
    host, port = read_address(url)
    if plan.machine == 0:
        return _await(plan, host, port, timeout, open_port)
    return _visit(plan, host, port, timeout)


def _await(plan: Plan, host: str, port: int, timeout: float, open_port: Callable[[], int]) -> tuple[Machines, int]:
    lines: dict[int, Line] = {}
    hosts = {0: plan.host}
    until = time.monotonic() + timeout
    with _listen(port) as listener:
        while len(lines) < plan.machines - 1:
            line, other = _next_visitor(listener, until)
            if line is None:
                missing = [str(m) for m in range(1, plan.machines) if m not in lines]
                problem = (
                    f"{'Machine' if len(missing) == 1 else 'Machines'} {', '.join(missing)} of {plan.machines} did not "
                    f"come to {host}:{port} within {timeout:g} seconds: start the command there with --machine-rank, "
                    "check address and firewall, or raise --dist-timeout."
                )
                _refuse(lines.values(), problem)
                raise EnvironmentProblem(problem)
            problem = plan.disagreement(other)
            if not problem and not 0 < other.machine < plan.machines or other.machine in lines:
                problem = (
                    f"Two machines have --machine-rank {other.machine} ({hosts.get(other.machine, '?')} and "
                    f"{other.host}): number them from 0 to {plan.machines - 1}."
                )
            if problem:
                _refuse([*lines.values(), line], problem)
                raise ConfigError(problem)
            lines[other.machine], hosts[other.machine] = line, other.host
    opened = open_port()
    named = [hosts[machine] for machine in range(plan.machines)]
    for line in lines.values():
        line.send(port=opened, hosts=named)
    return Machines(plan, lines, named, min(SILENCE, timeout)), opened


def _visit(plan: Plan, host: str, port: int, timeout: float) -> tuple[Machines, int]:
    until = time.monotonic() + timeout
    line = Line(_connect(host, port, until, timeout))
    try:
        return _ask(line, plan, f"{host}:{port}", timeout)
    except BaseException:
        line.drop()
        raise


def _ask(line: Line, plan: Plan, address: str, timeout: float) -> tuple[Machines, int]:
    """Tell machine 0 the plan and return its answer when all have come."""
    line.send(**vars(plan))
    problem = "is no training of this version, or has ended: give all machines the same command but for --machine-rank"
    try:
        answer = line.receive(timeout + LINGER)
        if answer is not None and "refused" in answer:
            raise ConfigError(str(answer["refused"]))
        if answer is not None:
            hosts = [str(name) for name in answer["hosts"]]
            return Machines(plan, {0: line}, hosts, min(SILENCE, timeout)), int(answer["port"])
    except TimeoutError:
        problem = f"has not started the run within {timeout:g} seconds: look at the output there"
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
    raise EnvironmentProblem(f"What answers at {address} (--dist-url) {problem}.")


@contextlib.contextmanager
def _listen(port: int) -> Iterator[socket.socket]:
    """Listen at a port of all interfaces."""
    try:
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        listener = socket.create_server(("", port), family=family, dualstack_ipv6=dual)
    except OSError as error:
        raise EnvironmentProblem(
            f"Port {port} of --dist-url cannot be used on machine 0 ({error.strerror}): give all machines another "
            "port, or end what uses this one."
        ) from error
    with listener:
        yield listener


def _next_visitor(listener: socket.socket, until: float) -> tuple[Line | None, Plan]:
    """Return the next launcher that connects, with its plan; no line if none comes in time."""
    nobody = Plan(0, 0, 0, "")
    while (left := until - time.monotonic()) > 0:
        listener.settimeout(min(left, 0.5))  # short, so that Ctrl-C is heard
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        line = Line(connection)
        try:
            hello = line.receive(5.0)
            if hello is not None:
                numbers = {key: int(hello[key]) for key in ("machines", "machine", "processes")}
                return line, Plan(**numbers, host=str(hello["host"]))
        except (ValueError, KeyError, TypeError, TimeoutError):
            pass  # a stranger, such as a scan of ports
        line.drop()
    return None, nobody


def _connect(host: str, port: int, until: float, timeout: float) -> socket.socket:
    """Connect to machine 0, which may start later than this one."""
    while True:
        left = until - time.monotonic()
        try:
            return socket.create_connection((host, port), timeout=max(0.1, min(left, 5.0)))
        except OSError as error:
            if left <= 0:
                raise EnvironmentProblem(
                    f"Machine 0 did not answer at {host}:{port} within {timeout:g} seconds ({error}): start the "
                    "command there with --machine-rank 0, check address and firewall, or raise --dist-timeout."
                ) from error
        time.sleep(min(0.5, max(0.0, left)))


def _refuse(lines: Iterable[Line], sentence: str) -> None:
    """Tell those who have come that there is no run, and wait until they have read it."""
    for line in lines:
        line.send(refused=sentence)
        line.close()
        with contextlib.suppress(TimeoutError, ValueError):
            line.receive(LINGER)
        line.drop()
