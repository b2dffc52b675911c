"""The output folder of a run: what of an earlier run may not stay in it."""

import logging
import re
from pathlib import Path

from detectron2.utils import comm

from align_detr.engine.best import BEST_FILE
from align_detr.engine.writers import METRICS_FILE
from align_detr.errors import ConfigError

logger = logging.getLogger(__name__)

_CHECKPOINT = re.compile(r"model_(\d{7}|final|best)\.pth|last_checkpoint")
_NUMBERS = re.compile(
    "|".join(map(re.escape, (METRICS_FILE, BEST_FILE, "curves.png")))
    + r"|weights(_best)?\.pth|events\.out\.tfevents\..+|fault_\d{7}(_process\d+)?\.(json|pth)"
)


def check_folder(folder: str | Path, *, resume: bool, overwrite: bool) -> None:
    """Raise ConfigError if a run would mix with an earlier one, whose checkpoints the folder has; and for both options
    at once.
    """
    if resume and overwrite:
        raise ConfigError("--resume continues a run and --overwrite removes it: leave out one of the two.")
    found = [path.name for path in _files(folder) if _CHECKPOINT.fullmatch(path.name)]
    if found and not resume and not overwrite:
        named = next((name for name in found if name.endswith(".pth")), found[0])
        raise ConfigError(
            f"{folder} has checkpoints of an earlier run ({named}): continue it with --resume, replace it with "
            "--overwrite (in Python resume=True, overwrite=True), or set another train.output_dir."
        )


def clear_folder(folder: str | Path) -> None:
    """Remove what an earlier run has written, on the main process, and name it in the log.

    This is checkpoints, metrics and their curves, the values of the best evaluation, fault reports, shared weights and
    tensorboard's events. Every other file stays, and log.txt goes on.
    """
    comm.synchronize()  # every process has loaded what it needs
    if comm.is_main_process():
        removed = [path for path in _files(folder) if _is_of_a_run(path)]
        for path in removed:
            path.unlink()
        if removed:
            logger.info("Removed from %s: %s.", folder, ", ".join(path.name for path in removed))
    comm.synchronize()


def _files(folder: str | Path) -> list[Path]:
    return sorted(path for path in Path(folder).glob("*") if path.is_file())


def _is_of_a_run(path: Path) -> bool:
    return bool(_CHECKPOINT.fullmatch(path.name) or _NUMBERS.fullmatch(path.name))
