"""Start of a process: output folder, loggers, device and seeds."""

import logging
import os
import sys
from functools import partial

import torch
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig

from align_detr.checkpoint.files import disk_problems, is_disk_full
from align_detr.engine.distributed import adopt_group, check_device
from align_detr.engine.shared_cpus import limit_threads
from align_detr.engine.summary import describe_environment

logger = logging.getLogger(__name__)


def set_up(options: DictConfig) -> None:
    """Make the output folder, start the loggers, set threads and the device's options, and seed all generators.

    `options` is the node `train` of a config. Raise EnvironmentProblem if this machine lacks the device, or
    does not take the folder.
    """
    adopt_group()
    if comm.is_main_process():
        with disk_problems(options.output_dir):
            os.makedirs(options.output_dir, exist_ok=True)
    comm.synchronize()
    _start_loggers(options.output_dir)
    check_device(options.device)
    limit_threads(comm.get_local_size())
    torch.backends.cudnn.benchmark = bool(options.cudnn_benchmark)
    seed(options.seed, 0)
    logger.info(describe_environment())


def seed(base: int | None, offset: int) -> None:
    """Seed all generators of this process with `base` + `offset` + rank; leave them if `base` is None or negative."""
    if base is not None and base >= 0:
        seed_all_rng(base + offset + comm.get_rank())


def _start_loggers(output_dir: str) -> None:
    """Log to the terminal and to log.txt of `output_dir`, even if this process has logged elsewhere before.

    Details (DEBUG) go to log.txt alone.
    """
    setup_logger.cache_clear()
    for name in ("align_detr", "detectron2", "fvcore"):
        logging.getLogger(name).handlers.clear()
        started = setup_logger(output_dir, distributed_rank=comm.get_rank(), name=name, abbrev_name=name)
        for handler in started.handlers:
            if getattr(handler, "stream", None) is sys.stdout:
                handler.setLevel(logging.INFO)
            else:
                handler.handleError = partial(_pass_over_full_disk, handler)


def _pass_over_full_disk(handler: logging.Handler, record: logging.LogRecord) -> None:
    """Let a line of log.txt be lost on a full disk, of which the next checkpoint makes a sentence."""
    error = sys.exc_info()[1]
    if not (isinstance(error, OSError) and is_disk_full(error)):
        type(handler).handleError(handler, record)
