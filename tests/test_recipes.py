"""The recipes of docs/recipes: what they would start, as far as one machine shows it without their schedulers."""

import importlib.util
import os
import shlex
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch.distributed.run import parse_args

import align_detr
from align_detr.cli.train import build_parser
from support.paths import PROJECT

RECIPES = PROJECT / "docs" / "recipes"
PODS = {
    "PET_NNODES": "2",
    "PET_NODE_RANK": "1",
    "PET_NPROC_PER_NODE": "8",
    "PET_MASTER_ADDR": "align-detr-master-0",
    "PET_MASTER_PORT": "23456",
}
ELASTIC = {
    "PET_NNODES": "2:2",
    "PET_NPROC_PER_NODE": "8",
    "PET_RDZV_BACKEND": "c10d",
    "PET_RDZV_ENDPOINT": "align-detr-elastic-worker-0:23456",
    "PET_MAX_RESTARTS": "10",
}


def stand_in(folder: Path, name: str, script: str) -> None:
    """Write a program that stands for one that is not here."""
    (folder / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
    (folder / name).chmod(0o755)


def run(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)


def pods(name: str) -> dict[str, Any]:
    """Return the pods of a PyTorchJob by role."""
    job = yaml.safe_load((RECIPES / name).read_text())
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    return dict(job["spec"]["pytorchReplicaSpecs"])


def command_of(pod: dict[str, Any]) -> list[str]:
    """Return the command of the container that the operator gives its variables."""
    (container,) = pod["template"]["spec"]["containers"]
    assert container["name"] == "pytorch" and pod["restartPolicy"] == "OnFailure"
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["template"]["spec"]["volumes"]}
    return list(container["command"])


@pytest.mark.parametrize("status, requeued", [(0, ""), (2, ""), (75, "requeue 7\n")])
def test_slurm_starts_a_launcher_per_node_and_requeues_what_was_saved(tmp_path, status: int, requeued: str) -> None:
    stand_in(tmp_path, "scontrol", f'[ "$1" = show ] && echo "n1\nn2" || echo "$@" >> {tmp_path}/requeued')
    stand_in(tmp_path, "srun", f'shift; for id in 0 1; do SLURM_NODEID=$id "$@"; status=$?; done; exit {status}')
    stand_in(tmp_path, "align-detr", f'printf "%q " "$@" >> {tmp_path}/started; echo >> {tmp_path}/started')
    (tmp_path / "requeued").touch()
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "8"}
    done = run(["bash", str(RECIPES / "slurm.sh"), "--config-file", "my config.py", "train.epochs=3"], tmp_path, **job)
    assert done.returncode == status, done.stderr
    assert (tmp_path / "requeued").read_text() == requeued
    lines = (tmp_path / "started").read_text().splitlines()
    for number, line in enumerate(lines):
        command, *arguments = shlex.split(line)
        args = build_parser().parse_intermixed_args(arguments)
        assert (command, args.num_gpus, args.num_machines, args.machine_rank) == ("train", 8, 2, number)
        assert (args.dist_url, args.resume) == ("tcp://n1:20007", True)
        assert (args.config_file, args.overrides) == ("my config.py", ["train.epochs=3"])
    assert len(lines) == 2


def test_a_pod_starts_a_launcher_with_the_operators_variables(tmp_path) -> None:
    stand_in(tmp_path, "align-detr", 'printf "%q " "$@"')
    roles = pods("pytorchjob.yaml")
    assert [roles[role]["replicas"] for role in ("Master", "Worker")] == [1, 1]
    for pod in roles.values():
        command, *arguments = shlex.split(run(command_of(pod), tmp_path, **PODS).stdout)
        args = build_parser().parse_intermixed_args(arguments)
        assert (command, args.num_gpus, args.num_machines, args.machine_rank) == ("train", 8, 2, 1)
        assert (args.dist_url, args.resume) == ("tcp://align-detr-master-0:23456", True)


def test_an_elastic_pod_starts_torchrun_with_the_operators_variables(tmp_path, monkeypatch) -> None:
    stand_in(tmp_path, "torchrun", 'printf "%q " "$@"')
    (pod,) = pods("pytorchjob_elastic.yaml").values()
    for name, value in ELASTIC.items():
        monkeypatch.setenv(name, value)
    torchrun = parse_args(shlex.split(run(command_of(pod), tmp_path).stdout))
    assert (torchrun.nnodes, torchrun.nproc_per_node, torchrun.max_restarts) == ("2:2", "8", 10)
    assert (torchrun.rdzv_backend, torchrun.rdzv_endpoint) == ("c10d", ELASTIC["PET_RDZV_ENDPOINT"])
    assert torchrun.module and importlib.util.find_spec(torchrun.training_script) is not None
    assert build_parser().parse_intermixed_args(torchrun.training_script_args).resume


def test_rays_workers_train_with_what_the_command_names(tmp_path, monkeypatch) -> None:
    """The trainer that stands for Ray's calls the function once, as each of its workers would."""
    made: dict[str, Any] = {}

    class TorchTrainer:
        def __init__(self, function: Any, *, train_loop_config: dict[str, Any], **options: Any) -> None:
            self.call = lambda: function(train_loop_config)
            made.update(options)

        def fit(self) -> None:
            self.call()

    ray, torch = types.ModuleType("ray.train"), types.ModuleType("ray.train.torch")
    for name in ("FailureConfig", "RunConfig", "ScalingConfig"):
        setattr(ray, name, dict)
    torch.TorchTrainer = TorchTrainer  # type: ignore[attr-defined]
    for module in (types.ModuleType("ray"), ray, torch):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(align_detr, "train", lambda **given: made.update(given))
    monkeypatch.setattr(sys, "argv", ["ray_train.py", "--data", "cells", "--output", "out", "train.epochs=3"])
    spec = importlib.util.spec_from_file_location("ray_train", RECIPES / "ray_train.py")
    assert spec is not None and spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    recipe.main()
    assert made["scaling_config"] == {"num_workers": 2, "use_gpu": False}
    assert made["overrides"] == ["train.output_dir=out", "train.epochs=3"]
    assert (made["data"], made["resume"]) == ("cells", True) and "config_file" not in made
