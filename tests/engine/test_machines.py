"""Launchers of several machines: what they agree on, and what each says when another is missing or gone."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from align_detr.engine.launcher import spawn
from align_detr.engine.machines import Line, Machines, Plan
from align_detr.engine.meeting import meet, read_address
from align_detr.errors import AlignDetrError, ConfigError, EnvironmentProblem

STORE = 12345


def plan(machine: int, *, machines: int = 2, processes: int = 1) -> Plan:
    return Plan(machines, machine, processes, f"host{machine}")


@pytest.fixture
def url() -> str:
    """Return an address of this machine with a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"tcp://127.0.0.1:{listener.getsockname()[1]}"


def meet_all(plans: list[Plan], url: str, timeout: float = 60.0) -> list[Any]:
    """Let launchers meet in threads; return what each has got: its machines and the store's port, or its error."""
    got: list[Any] = [None] * len(plans)

    def one(index: int) -> None:
        try:
            got[index] = meet(plans[index], url, timeout, lambda: STORE)
        except AlignDetrError as error:
            got[index] = error

    threads = [threading.Thread(target=one, args=(index,)) for index in range(len(plans))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return got


@pytest.fixture
def met(url: str) -> Iterator[Callable[..., list[Machines]]]:
    """Return a function that lets some machines meet and opens their lines."""
    with ExitStack() as open_lines:

        def all_of(count: int, timeout: float = 60.0) -> list[Machines]:
            got = meet_all([plan(number, machines=count) for number in range(count)], url, timeout)
            assert [port for _, port in got] == [STORE] * count
            return [open_lines.enter_context(machines) for machines, _ in got]

        yield all_of


def test_machines_meet_and_learn_each_others_names_and_the_store(met) -> None:
    for machines in met(3):
        assert machines.hosts == ["host0", "host1", "host2"]
        assert machines.problem() == ""


def test_machines_with_other_numbers_of_machines_or_processes_are_refused_on_all(url) -> None:
    for other, option in ((plan(1, processes=2), "--num-gpus"), (plan(1, machines=3), "--num-machines")):
        for error in meet_all([plan(0), other], url):
            assert isinstance(error, ConfigError)
            assert str(error).startswith(f"Machine 0 (host0) has {option} ") and "machine 1 (host1) has" in str(error)


def test_two_machines_of_one_number_are_refused(url) -> None:
    errors = meet_all([plan(0, machines=3), plan(1, machines=3), Plan(3, 1, 1, "twin")], url)
    assert all("Two machines have --machine-rank 1 (" in str(error) for error in errors)
    assert "number them from 0 to 2" in str(errors[0])


def test_a_machine_that_never_comes_ends_the_wait_of_all(url) -> None:
    errors = meet_all([plan(0, machines=3), plan(2, machines=3)], url, timeout=1.0)
    for error in errors:
        assert isinstance(error, EnvironmentProblem | ConfigError)
        assert "Machine 1 of 3 did not come to 127.0.0.1:" in str(error) and "within 1 seconds" in str(error)


def test_machine_0_that_never_comes_ends_the_wait(url) -> None:
    (error,) = meet_all([plan(1)], url, timeout=0.2)
    assert "Machine 0 did not answer at 127.0.0.1:" in str(error) and "within 0.2 seconds" in str(error)


def test_a_port_in_use_is_one_sentence_before_a_process_starts() -> None:
    with socket.create_server(("", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(EnvironmentProblem, match=f"^Port {port} of --dist-url cannot be used on machine 0"):
            spawn(print, (), device="cpu", local_size=1, num_machines=2, dist_url=f"tcp://127.0.0.1:{port}")


def test_another_service_at_the_address_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"tcp://127.0.0.1:{listener.getsockname()[1]}"

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        (error,) = meet_all([plan(1)], url)
        thread.join()
    assert isinstance(error, EnvironmentProblem) and "is no training of this version" in str(error)


def test_a_stranger_at_the_port_does_not_disturb(url) -> None:
    """Such as a scan of ports, or another program of the cluster."""
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.extend(meet_all([plan(0)], url)))
    thread.start()
    connected = None
    while connected is None:
        try:
            connected = socket.create_connection(read_address(url))
        except ConnectionRefusedError:
            continue
    with connected:
        connected.sendall(b"GET / HTTP/1.1\r\n\r\n")
    got.extend(meet_all([plan(1)], url))
    thread.join()
    assert [port for _, port in got] == [STORE, STORE]


def test_how_a_machine_has_ended_is_known_to_all_others(met) -> None:
    """Machine 0 passes it on."""
    first, second, third = met(3)
    ending = threading.Thread(target=third.end, args=("No image.",))
    ending.start()
    for machines in (first, second):
        assert machines.problem(wait=60) == "Machine 2 (host2) has ended: No image."
    first.end("")
    ending.join()


def test_a_machine_that_has_ended_well_is_no_problem(met) -> None:
    first, second = met(2)
    ending = threading.Thread(target=second.end, args=("",))
    ending.start()
    first.end("")
    ending.join()
    assert first.problem() == second.problem() == ""


@pytest.mark.parametrize(
    "kept, sentence", [(False, "its launcher is gone."), (True, "has been silent for 0.5 seconds")]
)
def test_a_launcher_that_is_gone_or_silent_is_named(url, kept: bool, sentence: str) -> None:
    """Killed, it closes the line; without power or network it says nothing more."""
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.extend(meet_all([plan(0)], url, timeout=0.5)))
    thread.start()
    connection = None
    while connection is None and thread.is_alive():
        try:
            connection = socket.create_connection(read_address(url))
        except ConnectionRefusedError:
            continue
    assert connection is not None
    with connection:
        line = Line(connection)
        line.send(**vars(plan(1)))
        thread.join()
        (machines, _) = got[0]
        with machines:
            if not kept:
                line.close()
            problem = machines.problem(wait=60)
            line.close()
    assert problem.startswith("Machine 1 (host1) has ended: ") and sentence in problem


@pytest.mark.parametrize("url", ["localhost:5", "tcp://host", "tcp://:5", "tcp://host:port", "tcp://host:70000"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="set it to tcp://HOST:PORT"):
        read_address(url)
    assert read_address("tcp://[::1]:5") == ("::1", 5)


def test_lines_hold_messages_only() -> None:
    for content in (b"\n", b"[1]\n", b"\xff\n", json.dumps("x").encode() + b"\n", b"x" * (1 << 17)):
        here, there = socket.socketpair()
        with here, there:
            thread = threading.Thread(target=there.sendall, args=(content,))
            thread.start()
            with pytest.raises(ValueError):
                Line(here).receive(60.0)
            here.close()
            thread.join()
