"""Two "machines" in network namespaces: the launcher's, and torchrun's with a restart. Both end as one machine does."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve().parent
OPTIONS = ["train.eval_period=0", "train.ema.enabled=True", "train.checkpointer.period=2", "train.pictures=0"]
# What kills the process of machine 1 in its sixth step, once.
DYING_MAPPER = """
import os
import signal
from pathlib import Path

import tiny_detector

MARK = Path(__file__).with_name("mark")
images = 0


def map_record(record):
    global images
    images += 1
    if images == 12 and os.environ.get("RANK") == "1" and not MARK.exists():
        MARK.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return tiny_detector.map_record(record)
"""


@pytest.fixture(scope="module")
def namespaces() -> None:
    """Skip where a process may not have network namespaces of its own."""
    missing = [tool for tool in ("unshare", "nsenter", "ip", "mount", "hostname") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"two machines need {', '.join(missing)} of util-linux and iproute2")
    tried = subprocess.run([*two_machines(), "true", "true"], capture_output=True, text=True, timeout=120)
    if tried.returncode == 3 or "unshare" in tried.stderr:
        pytest.skip(f"network namespaces are not permitted here: {tried.stderr.strip()}")
    assert tried.stdout == "0 0\n", tried.stderr


def two_machines() -> list[str]:
    return ["unshare", "-Urnum", "bash", str(HERE / "two_machines.sh")]


def run_on_both(commands: list[list[str]], tmp_path: Path, **environment: str) -> tuple[str, list[str]]:
    """Run a command on each machine; return the exit statuses, and the output of each."""
    logs = [tmp_path / f"machine{number}.log" for number in range(2)]
    lines = [f"{shlex.join(command)} > {log} 2>&1" for command, log in zip(commands, logs, strict=True)]
    root = str(HERE.parents[1])
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root, **environment}
    env.pop("GLOO_SOCKET_IFNAME", None)
    done = subprocess.run([*two_machines(), *lines], capture_output=True, text=True, timeout=300, env=env, cwd=root)
    return done.stdout.strip(), [log.read_text() for log in logs]


def weights(output: Path) -> dict[str, torch.Tensor]:
    state = torch.load(output / "model_final.pth", weights_only=True)
    return {**state["model"], **{f"ema.{key}": value for key, value in state["ema"]["model"].items()}}


def assert_same_bits(output: Path, other: Path) -> None:
    a, b = weights(output), weights(other)
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def one_machine(tiny_run, namespaces) -> Path:
    """Return the output of two processes on one machine."""
    assert tiny_run.train("--num-gpus", "2", *OPTIONS) == 0
    return tiny_run.output


def test_two_machines_end_as_one_with_two_processes(tiny_run, one_machine, tmp_path) -> None:
    """The launchers are told an address, and find the network interface themselves; torchrun starts again.

    Under torchrun the process of machine 1 is killed; both machines restart, resume, and lose nothing.
    """
    command = [sys.executable, "train_net.py", "--config-file", str(tiny_run.config), *OPTIONS]
    command += ["--num-machines", "2", "--dist-url", "tcp://10.77.0.1:29517", f"train.output_dir={tmp_path / 'two'}"]
    status, logs = run_on_both([[*command, "--machine-rank", str(number)] for number in range(2)], tmp_path)
    assert status == "0 0", "\n".join(logs)
    assert_same_bits(tmp_path / "two", one_machine)

    (tmp_path / "dying_mapper.py").write_text(DYING_MAPPER)
    config = tmp_path / "dying.py"
    config.write_text(
        f"{tiny_run.config.read_text()}\nsys.path.insert(0, {str(tmp_path)!r})\nimport dying_mapper\n"
        'dataloader["train"].mapper = dying_mapper.map_record\n'
    )
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n10.77.0.1 machine0\n10.77.0.2 machine1\n")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--max-restarts", "1"]
    torchrun += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "machine0:29400", "--rdzv-id", "two"]
    elastic = [*torchrun, "train_net.py", "--config-file", str(config), "--resume", *OPTIONS]
    elastic.append(f"train.output_dir={tmp_path / 'elastic'}")
    status, logs = run_on_both([elastic, elastic], tmp_path, HOSTS=str(tmp_path / "hosts"))
    assert status == "0 0", "\n".join(logs)
    assert (tmp_path / "mark").exists()
    assert "has no checkpoint to resume: starting at iteration 0" in logs[0]
    assert "Resuming at iteration 4 of 6" in logs[0]
    assert_same_bits(tmp_path / "elastic", one_machine)
    rows = [{k: v for k, v in row.items() if "time" not in k} for row in tiny_run.metrics(tmp_path / "elastic")]
    assert [row["iteration"] for row in rows] == [row["iteration"] for row in tiny_run.metrics(one_machine)]
