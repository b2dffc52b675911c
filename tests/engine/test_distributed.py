"""Several processes on the CPU: spawned by the command, and started by torchrun."""

import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.utils import comm
from torch.multiprocessing import ProcessRaisedException
from torch.nn.parallel import DistributedDataParallel

from align_detr.cli.train import _sentence_of_process
from align_detr.engine.distributed import ProcessRank, join, membership, torchrun_rank
from align_detr.engine.launcher import first_error, note_error, spawn
from align_detr.engine.lost import Peer, ProcessDied, address_toward, describe_lost, interface_of
from align_detr.engine.start_round import name_round
from align_detr.errors import ConfigError, EnvironmentProblem

PROJECT = Path(__file__).resolve().parents[2]
OPTIONS = ["train.epochs=2", "train.eval_period=0", "train.ema.enabled=True"]


def weights(output):
    return torch.load(output / "model_final.pth", weights_only=True)


def assert_same_weights(a, b):
    for key in a["model"]:
        torch.testing.assert_close(a["model"][key], b["model"][key], rtol=0, atol=1e-5)
        torch.testing.assert_close(a["ema"]["model"][key], b["ema"]["model"][key], rtol=0, atol=1e-5)


def test_two_processes_equal_one_with_both_their_images(tiny_run, tmp_path):
    """Spawned and under torchrun, the batch of 4 is shared 2 and 2, and weights and metrics are equal at the end."""
    assert tiny_run.train(*OPTIONS) == 0
    one = weights(tiny_run.output)

    spawned = tmp_path / "spawned"
    assert tiny_run.train("--num-gpus", "2", f"train.output_dir={spawned}", *OPTIONS) == 0
    assert_same_weights(one, weights(spawned))

    launched = tmp_path / "launched"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    user_config = tmp_path / "user_config.py"  # registers data as a user's file does, which fails a second time
    user_config.write_text(
        tiny_run.config.read_text()
        + "from detectron2.data.datasets import register_coco_instances\n"
        + f"register_coco_instances('own_train', {{}}, {str(tmp_path / 'data/train.json')!r}, 'images')\n"
    )
    command = [*torchrun, str(PROJECT / "train_net.py"), "--config-file", str(user_config), *OPTIONS]
    subprocess.run([*command, f"train.output_dir={launched}"], check=True, capture_output=True, timeout=120)
    assert_same_weights(one, weights(launched))

    for output in (spawned, launched):
        rows = tiny_run.metrics(output)
        assert [row["iteration"] for row in rows] == [row["iteration"] for row in tiny_run.metrics()]
        assert rows[0]["total_loss"] == pytest.approx(tiny_run.metrics()[0]["total_loss"], rel=1e-5)
        assert rows[-1]["bbox/AP"] == pytest.approx(tiny_run.metrics()[-1]["bbox/AP"], abs=1e-6)


GLOO_THREADS = """
from pathlib import Path
names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
count = sum("gloo" in name for name in names)
sys.stdout.write(f"gloo threads {count}\\n")  # in one piece, as the processes share the pipe
"""
# Runs train_net.py as torchrun does, then prints what is left.
TRAIN = """
import runpy
import sys
train_net = sys.argv.pop(1)
try:
    runpy.run_path(train_net, run_name="__main__")
except SystemExit as error:
    sys.stdout.write(f"exit {error.code}\\n")
"""
# The first use of DistributedDataParallel imports functions that take the group as a default argument.
WRAP = """
import sys
import torch
from align_detr.engine.distributed import ProcessRank, membership
with membership(ProcessRank(), "cpu", "file://" + sys.argv[1]):
    torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
"""
needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in Linux's /proc")


@needs_proc
@pytest.mark.parametrize("status, options", [(0, []), (2, ["optimizer.lr=1e30"])], ids=["trained", "diverged"])
def test_no_thread_of_the_process_group_outlives_it(tiny_run, tmp_path, status, options):
    """A thread that releases a tensor while the interpreter shuts down aborts the process."""
    script = tmp_path / "train_and_print.py"
    script.write_text(TRAIN + GLOO_THREADS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    arguments = [str(PROJECT / "train_net.py"), "--config-file", str(tiny_run.config), *options]
    run = subprocess.run([*command, *arguments], check=True, capture_output=True, text=True, timeout=120)
    assert run.stdout.count(f"exit {status}\n") == run.stdout.count("gloo threads 0\n") == 2, run.stdout + run.stderr


@needs_proc
def test_no_thread_outlives_a_group_of_other_code(tmp_path):
    command = [sys.executable, "-c", WRAP + GLOO_THREADS, str(tmp_path / "store")]
    run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, cwd=PROJECT)
    assert run.stdout == "gloo threads 0\n"


def test_an_error_in_a_process_is_one_sentence(tiny_run, capfd):
    assert tiny_run.train("--num-gpus", "2", "train.init_checkpoint=absent.pth") == 2
    errors = capfd.readouterr().err
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "absent.pth does not exist" in lines[0]
    assert "Traceback" not in errors


def fail_alone(failing: int) -> None:
    """Raise in one process while the other waits for its gradients."""
    model = DistributedDataParallel(torch.nn.Linear(3, 3))
    for step in range(4):
        if step == 3 and comm.get_rank() == failing:
            raise ConfigError("one sentence.")
        model(torch.ones(2, 3)).sum().backward()


@pytest.mark.parametrize("failing", [0, 1])
def test_the_first_error_is_reported(failing):
    """The error of the process that fails first is raised, not that of the process that then lost it."""
    with pytest.raises(ProcessRaisedException) as raised:
        spawn(fail_alone, (failing,), device="cpu", local_size=2)
    assert _sentence_of_process(str(raised.value)) == "one sentence."


def test_a_traceback_that_is_not_whole_is_passed_over(tmp_path):
    """The launcher ends a process when another has failed, also while it writes; the earliest whole one counts."""
    (tmp_path / "unfinished_0").touch()
    assert first_error(tmp_path) == ""
    for number, error in enumerate([ConfigError("one sentence."), ConfigError("another.")], start=1):
        note_error(tmp_path, number, error)
    assert _sentence_of_process(first_error(tmp_path)) == "one sentence."


def die_alone() -> None:
    """Be killed in one process while the other waits for its gradients."""
    model = DistributedDataParallel(torch.nn.Linear(3, 3))
    for step in range(4):
        if step == 3 and comm.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        model(torch.ones(2, 3)).sum().backward()


def test_a_process_that_is_killed_is_named():
    with pytest.raises(ProcessDied, match="^Process 1 on .* was killed by SIGKILL: .* --resume"):
        spawn(die_alone, (), device="cpu", local_size=2)


@pytest.fixture
def alone(monkeypatch):
    """Return the one process of two that comes, to a free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(port))
    return ProcessRank(rank=0, world_size=2, local_size=2)


def test_processes_that_do_not_come_are_one_sentence(alone):
    with pytest.raises(
        EnvironmentProblem, match="^The 2 processes of the run did not all meet at 127.0.0.1:.* within 1 "
    ):
        join(alone, "cpu", timeout=1.0)
    assert not torch.distributed.is_initialized()


def test_the_port_of_torchruns_variables_in_use_is_one_sentence(alone, monkeypatch):
    with socket.create_server(("", 0)) as listener:
        monkeypatch.setenv("MASTER_PORT", str(listener.getsockname()[1]))
        with pytest.raises(EnvironmentProblem, match=r"^The port of 127.0.0.1:\d+ \(MASTER_PORT\) is in use"):
            join(alone, "cpu", timeout=1.0)


def test_sentences_on_lost_contact_name_who_is_gone():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here, there = Peer("a", os.getpid(), "10.0.0.1"), Peer("b", 1, "10.0.0.2")
    dead, lost = Peer("a", ended.pid, "10.0.0.1"), RuntimeError("[x/pair.cc:5] Connection closed by peer [10.0.0.2]:7")
    assert describe_lost(lost, 0, [here, dead, there], 5) == (
        "Process 0 has lost process 1 on a (Connection closed by peer [10.0.0.2]:7): start all again with --resume, "
        "which goes on after the last checkpoint."
    )
    assert "has lost one of processes 2, 3 on b (" in describe_lost(lost, 0, [here, here, there, there], 5)
    assert "has lost another process (" in describe_lost(lost, 0, [here, here], 5)
    assert "has waited for the others for 5 seconds (" in describe_lost(RuntimeError("Timed out"), 0, [here, there], 5)
    for other in (ValueError("Timed out"), RuntimeError("shape"), EnvironmentProblem("Raise train.data_timeout.")):
        assert describe_lost(other, 0, [here, there], 5) is None


def name_all(store: torch.distributed.Store, timeout: float = 60.0) -> list[Any]:
    """Let two processes, as threads, name a round; return what each gets."""

    def name(rank: int) -> Any:
        try:
            return name_round(store, rank, 2, address="host:5", timeout=timeout)
        except EnvironmentProblem as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(name, range(2)))


def test_a_restart_on_the_same_store_has_a_name_of_its_own():
    """What processes that are gone have left there is not taken for that of the new ones."""
    store = torch.distributed.HashStore()
    first, second = name_all(store), name_all(store)
    assert first[0] == first[1] != second[0] == second[1]
    left = pytest.raises(EnvironmentProblem, match="^Process 1 of 2 did not come to host:5 within 0 seconds")
    with left:  # the greeting of the process that is gone is no process
        name_round(store, 0, 2, address="host:5", timeout=0)
    with pytest.raises(EnvironmentProblem, match="^Process 0 did not come to host:5 within 0 seconds"):
        name_round(store, 1, 2, address="host:5", timeout=0)


@needs_proc
def test_the_interface_of_an_address_is_found():
    assert address_toward("127.0.0.1") == "127.0.0.1" and interface_of("127.0.0.1") == "lo"
    assert address_toward("no.such.host.invalid") == interface_of("192.0.2.1") == ""


@pytest.mark.parametrize(
    "arguments, message", [(["--overwrite"], "--max-restarts"), ([], "cannot be shared equally by 3")]
)
def test_torchruns_variables_are_checked_before_the_processes_meet(tiny_run, monkeypatch, capsys, arguments, message):
    """A restart with --overwrite would remove what the run has saved; a batch of 4 is not for 3 processes."""
    given = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "3", "TORCHELASTIC_MAX_RESTARTS": "1"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert tiny_run.train(*arguments) == 2
    assert message in capsys.readouterr().err


def in_a_circle() -> None:
    try:
        raise ValueError("a")
    except ValueError as a:
        try:
            raise KeyError("b") from a
        except KeyError as b:
            raise a from b


def test_errors_that_cause_each_other(tmp_path):
    """Such an error is raised as any other, and a failed second group leaves the first as it was."""
    with pytest.raises(ValueError, match="^a$"), membership(ProcessRank(), "cpu", f"file://{tmp_path / 'store'}"):
        with pytest.raises(ValueError, match="twice"), membership(ProcessRank(), "cpu", f"file://{tmp_path / 'two'}"):
            pass
        assert torch.distributed.is_initialized()
        in_a_circle()
    assert not torch.distributed.is_initialized()


def test_torchrun_is_recognised_by_its_variables():
    assert torchrun_rank({}) is None
    assert torchrun_rank({"RANK": "0", "WORLD_SIZE": "2"}) is None
    given = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
    assert torchrun_rank(given) == ProcessRank(rank=5, local_rank=1, world_size=8, local_size=4)


def test_sentence_of_a_process():
    text = "\n\n-- Process 1 terminated with the following error:\nTraceback (most recent call last):\n  File\n"
    assert _sentence_of_process(text + "align_detr.errors.DatasetError: No: image.\n") == "No: image."
    assert _sentence_of_process(text + "align_detr.engine.trainer.TrainingDiverged: At 3.") == "At 3."
    assert _sentence_of_process(text + "ValueError: no") is None
