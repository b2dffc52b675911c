"""Processes of a run that is ended from outside: nothing stays behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from align_detr.errors import EXIT_INTERRUPTED

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
OPTIONS = ["train.max_iter=100000", "train.eval_period=0", "train.checkpointer.period=5", "train.log_period=1"]
OPTIONS += ["dataloader.train.num_workers=2", "train.checkpointer.max_to_keep=1"]


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def start(tiny_run, *options: str, launched_by: tuple[str, ...] = ()) -> subprocess.Popen:
    """Start a run in a session of its own and wait until it has saved a checkpoint."""
    script = str(Path(__file__).resolve().parents[2] / "train_net.py")
    command = [sys.executable, *launched_by, script, "--config-file", str(tiny_run.config), *OPTIONS, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True, env=environment
    )
    wait_for(lambda: (tiny_run.output / "last_checkpoint").exists() or process.poll() is not None, 120)
    assert process.poll() is None, process.stderr.read()
    return process


def wait_for(condition, seconds: float) -> bool:
    """Return whether `condition()` becomes true within some seconds."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def session(number: int) -> list[int]:
    """Return the processes of a session that are alive."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of, *_ = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(of) == number and state != "Z":
            found.append(int(path.parent.name))
    return found


def of_run(output: Path) -> list[int]:
    """Return the processes that are alive and whose command names an output folder; torchrun's have own sessions."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            named = str(output).encode() in path.read_bytes()
            alive = path.with_name("stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            continue
        if named and alive:
            found.append(int(path.parent.name))
    return found


def test_sigterm_to_all_processes_saves_and_ends_the_workers(tiny_run):
    """As a scheduler sends it: the workers go on until the step is finished."""
    process = start(tiny_run)
    assert len(session(process.pid)) == 3
    os.killpg(process.pid, signal.SIGTERM)
    error = process.communicate(timeout=60)[1].decode()
    assert process.returncode == EXIT_INTERRUPTED, error
    assert "SIGTERM: training stops after iteration" in error and "go on with --resume" in error
    assert wait_for(lambda: not session(process.pid), 10)
    last = (tiny_run.output / "last_checkpoint").read_text()
    state = torch.load(tiny_run.output / last, weights_only=True)
    assert last == f"model_{state['trainer']['iteration']:07d}.pth" and state["run"]["step_is_finished"]


def test_sigkill_of_the_main_process_ends_the_workers(tiny_run):
    """Also where they wait at a full queue; the run of two processes ends with its launcher."""
    process = start(tiny_run, "--num-gpus", "2", "dataloader.train.num_workers=1")
    assert len(session(process.pid)) >= 5
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert wait_for(lambda: not session(process.pid), 10)


def test_a_signal_to_the_launcher_ends_both_processes_after_the_same_step(tiny_run):
    process = start(tiny_run, "--num-gpus", "2", "dataloader.train.num_workers=0")
    os.kill(process.pid, signal.SIGTERM)
    error = process.communicate(timeout=60)[1].decode()
    assert process.returncode == EXIT_INTERRUPTED, error
    assert "go on with --resume" in error and "Traceback" not in error
    state = torch.load(tiny_run.output / (tiny_run.output / "last_checkpoint").read_text(), weights_only=True)
    assert len(state["run"]["generators"]) == 2 and state["run"]["step_is_finished"]
    assert wait_for(lambda: not session(process.pid), 10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_torchrun_is_that_of_its_processes(tiny_run, number):
    """Told to end, they finish the step and save, and torchrun's status is 1; when it is killed, they follow it."""
    output = f"train.output_dir={tiny_run.output}"
    process = start(tiny_run, output, "dataloader.train.num_workers=1", launched_by=TORCHRUN)
    assert len(of_run(tiny_run.output)) >= 5
    os.kill(process.pid, number)
    error = process.communicate(timeout=60)[1].decode()
    assert wait_for(lambda: not of_run(tiny_run.output), 20)
    if number == signal.SIGTERM:
        assert process.returncode == 1 and error.count("SIGTERM: training stops after iteration") == 2, error
        state = torch.load(tiny_run.output / (tiny_run.output / "last_checkpoint").read_text(), weights_only=True)
        assert state["run"]["step_is_finished"]
