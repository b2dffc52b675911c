"""What happens to a step whose loss or gradient is not finite: a report, and the end of training or the next step."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm
from torch import nn

from align_detr.engine.fault_report import SavedStep, bare, write_report
from align_detr.engine.faults import Findings, RandomState, examine
from align_detr.engine.precision import Precision
from align_detr.engine.progress import progress_told
from align_detr.errors import AlignDetrError

logger = logging.getLogger(__name__)

_MOST_REPORTS = 3  # of steps left out, in a run: each holds the weights


class TrainingDiverged(AlignDetrError, FloatingPointError):
    """A loss or gradient that is no longer finite. `shared`: every process of the run has found it in this step."""

    shared = False


@dataclass
class Guard:
    """Reports of steps that are not finite into `folder` (None: none), and how many such steps are left out.

    skip: leave such a step out, at most `limit` in a row; otherwise the first ends training. `skipped` counts them.
    With several processes a step is left out if all know of it, which they do by their common gradient.
    """

    folder: Path | None = None
    skip: bool = False
    limit: int = 5
    skipped: int = 0
    in_a_row: int = 0
    _reports: int = 0

    def take(
        self,
        fault: AlignDetrError,
        *,
        model: nn.Module,
        batch: Sequence[Any],
        precision: Precision,
        accumulate: int,
        random: RandomState,
        iteration: int,
    ) -> None:
        """Return if the step is to be left out, else raise `fault` with what a second computation has found."""
        shared = getattr(fault, "shared", False) or comm.get_world_size() == 1
        leave_out = self.skip and shared and self.in_a_row < self.limit
        sentence = str(fault)
        if self.folder is not None and (not leave_out or self._reports < _MOST_REPORTS):
            self._reports += 1
            inner = bare(model)
            found = _examine(inner, batch, precision=precision, accumulate=accumulate, random=random)
            step = SavedStep(list(batch), inner.state_dict(), random, accumulate, progress_told(inner))
            sentence = self._report(fault, iteration, step, found, shared)
        elif not leave_out and shared and comm.get_world_size() > 1:
            sentence = comm.all_gather(sentence)[0]
        if leave_out and (spoiled := _spoiled_buffer(bare(model))):
            sentence = f"{sentence.rstrip('.')}; it cannot be left out, as {spoiled} is not finite any more."
            leave_out = False
        if not leave_out:
            if self.in_a_row and self.skip:
                sentence = f"{sentence.rstrip('.')}; {self.in_a_row} steps before it are left out."
            raise type(fault)(sentence) from None
        self.skipped += 1
        self.in_a_row += 1
        logger.warning(
            "Step %d is left out (train.on_nonfinite=skip, %d so far): %s", iteration, self.skipped, sentence
        )

    def passed(self) -> None:
        """Note a step that is finite."""
        self.in_a_row = 0

    def state_dict(self) -> dict[str, int]:
        """Return the counts, which a resumed run goes on with."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row, "reports": self._reports}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Restore what `state_dict` returned; {} leaves the counts as they are."""
        self.skipped, self.in_a_row = state.get("skipped", self.skipped), state.get("in_a_row", self.in_a_row)
        self._reports = state.get("reports", self._reports)

    def _report(self, fault: AlignDetrError, iteration: int, step: SavedStep, found: Findings, shared: bool) -> str:
        """Write the report, on the first process that has the fault; return the sentence that all of them end with."""
        ranks = [0]
        if shared and comm.get_world_size() > 1:
            ranks = [rank for rank, finite in enumerate(comm.all_gather(found.is_finite)) if not finite] or [0]
        sentence = str(fault)
        if not shared or comm.get_rank() == ranks[0]:
            path = self._write(sentence, iteration, step, found)
            where = f"the first output that is not finite is that of {found.layer}"
            if not found.layer:
                where = "a second computation is finite" if found.is_finite else "the outputs of all layers are finite"
            see = "" if path is None else f" (see {path}; `align-detr replay {path}` repeats it)"
            sentence = f"{sentence.rstrip('.')}; {where}{see}."
        return comm.all_gather(sentence)[ranks[0]] if shared and comm.get_world_size() > 1 else sentence

    def _write(self, sentence: str, iteration: int, step: SavedStep, found: Findings) -> Path | None:
        """Write the report and return its path, or None, which is logged, if the folder does not take it."""
        assert self.folder is not None  # the caller has looked
        process = comm.get_rank()
        try:
            return write_report(
                self.folder, sentence=sentence, iteration=iteration, process=process, step=step, found=found
            )
        except (OSError, RuntimeError) as error:  # RuntimeError: torch's own of a full disk
            logger.warning("The report on iteration %d cannot be written (%s).", iteration, error)
            return None


def _examine(model: nn.Module, batch: Sequence[Any], **options: Any) -> Findings:
    """Compute a batch again; whatever fails then must not hide the fault, and stands in the findings."""
    if comm.get_world_size() > 1 and any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
        return Findings(error="not computed again, as its SyncBatchNorm would wait for other processes")
    try:
        return examine(model, batch, **options)
    except Exception as error:
        return Findings(error=f"{type(error).__name__}: {error}")


def _spoiled_buffer(model: nn.Module) -> str:
    """Return the name of a buffer, such as a batch norm's mean, that the step has made infinite or NaN, or ""."""
    for name, value in model.named_buffers():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            return name
    return ""
