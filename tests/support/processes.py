"""Runs a function of a test in two processes on the CPU."""

import faulthandler
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detectron2.utils import comm

from align_detr.engine.launcher import spawn


def in_two_processes(function: Callable[[int], Any], folder: Path) -> list[Any]:
    """Return what `function(rank)`, of a test module's top level, returned in each process, by way of JSON."""
    spawn(_keep_result, (function, folder), device="cpu", local_size=2)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def _keep_result(function: Callable[[int], Any], folder: Path) -> None:
    faulthandler.dump_traceback_later(180, exit=True)  # processes that wait for each other forever
    result = function(comm.get_rank())
    (folder / f"{comm.get_rank()}.json").write_text(json.dumps(result))
