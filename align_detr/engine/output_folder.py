"""The output folder of a run: what of an earlier run may not stay in it."""

import logging
import re
from pathlib import Path

from detectron2.utils import comm

from align_detr.checkpoint.contents import BEST_WEIGHTS_FILE, WEIGHTS_FILE
from align_detr.engine.best import BEST_FILE
from align_detr.engine.loggers import IDS_FILE
from align_detr.engine.writers import METRICS_FILE
from align_detr.errors import ConfigError

logger = logging.getLogger(__name__)

_CHECKPOINT = re.compile(r"model_(\d{7}|final|best)\.pth|last_checkpoint")
_WEIGHTS = (WEIGHTS_FILE, BEST_WEIGHTS_FILE)
_NUMBERS = re.compile(
    "|".join(map(re.escape, (METRICS_FILE, BEST_FILE, IDS_FILE, "curves.png")))
    + r"|weights(_best)?\.pth|events\.out\.tfevents\..+|fault_\d{7}(_process\d+)?\.(json|pth|yaml)"
)


def check_folder(folder: str | Path, *, resume: bool, overwrite: bool, start: str | Path = "") -> None:
    """Raise ConfigError if a run would mix with an earlier one or replace its files; for both options at once; and if
    `overwrite` would remove `start`, the file that training starts from.
    """
    if resume and overwrite:
        raise ConfigError("--resume continues a run and --overwrite removes it: leave out one of the two.")
    found = [path for path in _files(folder) if _is_of_a_run(path)]
    if overwrite:
        if start and any(path.resolve() == Path(start).resolve() for path in found):
            raise ConfigError(
                f"train.init_checkpoint={start} is one of the files that --overwrite removes: move it to another "
                "folder, or set another train.output_dir."
            )
        return
    checkpoints = [path.name for path in found if _CHECKPOINT.fullmatch(path.name)]
    if resume and checkpoints:
        return
    # with --resume, the numbers are of a run that ended before its first checkpoint, as schedulers start it again
    kept = [path.name for path in found if path.name in _WEIGHTS or (not resume and _has_numbers(path))]
    if not checkpoints and kept:
        raise ConfigError(
            f"{folder} has {', '.join(kept)}, which training would replace or mix with its own: move what you need to "
            "another folder and pass --overwrite (in Python overwrite=True), or set another train.output_dir."
        )
    if checkpoints:
        named = next((name for name in checkpoints if name.endswith(".pth")), checkpoints[0])
        raise ConfigError(
            f"{folder} has checkpoints of an earlier run ({named}): continue it with --resume, replace it with "
            "--overwrite (in Python resume=True, overwrite=True), or set another train.output_dir."
        )


def clear_folder(folder: str | Path) -> None:
    """Remove what an earlier run has written, on the main process, and name it in the log.

    This is checkpoints, metrics and their curves, the values of the best evaluation, fault reports, shared weights,
    the ids of other libraries' runs and tensorboard's events. Every other file stays, and log.txt goes on.
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


def _has_numbers(path: Path) -> bool:
    return path.name in (METRICS_FILE, BEST_FILE) and path.stat().st_size > 0
