"""Start of a process: output folder, loggers, device and seeds."""

import logging
import os
import sys

import torch
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig

from align_detr.checkpoint.files import remove_unfinished
from align_detr.engine.distributed import adopt_group, check_device
from align_detr.engine.summary import describe_environment

logger = logging.getLogger(__name__)


def set_up(options: DictConfig) -> None:
    """Make the output folder, start the loggers, set the device's options and seed all generators.

    `options` is the node `train` of a config. Raise EnvironmentProblem if this machine lacks the device.
    """
    adopt_group()
    if comm.is_main_process():
        os.makedirs(options.output_dir, exist_ok=True)
        remove_unfinished(options.output_dir)
    comm.synchronize()
    _start_loggers(options.output_dir)
    check_device(options.device)
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
