"""The training step."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from align_detr.data.worker_faults import worker_faults
from align_detr.engine.accumulation import split_batch
from align_detr.engine.faults import RandomState
from align_detr.engine.guard import Guard, TrainingDiverged
from align_detr.engine.memory import out_of_memory_of
from align_detr.engine.precision import Precision
from align_detr.engine.profiling import part_of_step
from align_detr.errors import ConfigError, NonFinitePrediction


class Trainer(SimpleTrainer):
    """detectron2's loop with another step: precision, clipping of the whole gradient, one copy of all metrics.

    The gradient is clipped after unscaling, by one norm over all optimised parameters. All losses and the gradient norm
    are copied to the host once per step. `clip_max_norm=0` leaves the gradient as it is, but its norm is still checked
    and logged. `accumulate` is the number of parts that each batch is computed in, one after the other: memory for one
    part, the gradient of the whole. `guard` decides on steps that are not finite (default: the first ends training).
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        data_loader: Iterable[list[dict[str, Any]]],
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        clip_max_norm: float = 0.1,
        clip_norm_type: float = 2.0,
        accumulate: int = 1,
        guard: Guard | None = None,
    ) -> None:
        super().__init__(model, data_loader, optimizer)
        self.precision = precision
        self.clip_max_norm = float(clip_max_norm)
        self.clip_norm_type = float(clip_norm_type)
        self.accumulate = accumulate
        self.guard = Guard() if guard is None else guard

    def train(self, start_iter: int, max_iter: int) -> None:
        """Run iterations [start_iter, max_iter) with all hooks.

        This is detectron2's loop without its logged traceback: errors reach the caller, who prints a sentence for those
        that a user can act on. `iter >= max_iter` holds in `after_train` after success, and only then. A hook ends
        training after the present iteration by setting `max_iter` to the next.
        """
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        with EventStorage(start_iter) as self.storage:
            try:
                self.before_train()
                with worker_faults():  # the death of a worker may interrupt any line
                    while self.iter < self.max_iter:
                        self.before_step()
                        self.run_step()
                        self.after_step()
                        self.iter += 1
                    self.stop_workers()  # the death of one is of no matter to the last evaluation
            finally:
                self.after_train()

    def stop_workers(self) -> None:
        """End the worker processes of the loader, which is of no use from then on."""
        close = getattr(self._data_loader_iter, "close", None)
        if close is not None:
            close()

    def run_step(self) -> None:
        """Run forward and backward passes and one optimizer step.

        A step that is not finite is not made: the guard raises, or it is left out. Raise OutOfMemory with the images
        that did not fit.
        """
        start = time.perf_counter()
        with part_of_step("data"):
            batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start

        random = RandomState.now(next(self.model.parameters()).device)
        try:
            with out_of_memory_of(
                batch,
                self.iter,
                model=self.model,
                accumulate=self.accumulate,
                mixed_precision=self.precision.enabled,
            ):
                self._make_step(batch, data_time)
        except (TrainingDiverged, NonFinitePrediction) as fault:
            self.guard.take(
                fault,
                model=self.model,
                batch=batch,
                precision=self.precision,
                accumulate=self.accumulate,
                random=random,
                iteration=self.iter,
            )
            self.optimizer.zero_grad(set_to_none=True)
            self.storage.put_scalar("skipped_steps", self.guard.skipped, smoothing_hint=False)
        else:
            self.guard.passed()

    def _make_step(self, batch: Sequence[Any], data_time: float) -> None:
        """Compute the gradient of a batch, look at it, and change the weights. Raise for what is not finite."""
        self.optimizer.zero_grad(set_to_none=True)
        names, values = self._accumulate_gradient(batch)
        scaler = self.precision.scaler
        scaler.unscale_(self.optimizer)
        with part_of_step("clip"):
            grad_norm = self._clip_gradient()
        try:
            with part_of_step("metrics"):
                self._log_step(names, values, grad_norm, data_time)
        except TrainingDiverged:
            scaler.update()  # of a step that is left out: without it the next could not be unscaled
            raise
        with part_of_step("optimizer"):
            scaler.step(self.optimizer)
        scaler.update()

    def _accumulate_gradient(self, batch: Sequence[Any]) -> tuple[list[str], Tensor]:
        """Run the forward and backward pass of each part of `batch`; return the losses of the whole by name, on the
        device.

        A NonFinitePrediction of the model is raised again with the iteration in its sentence.
        """
        parts = split_batch(batch, self.accumulate)
        total: Tensor | None = None
        for i, part in enumerate(parts, start=1):
            with self._exchange(last=i == len(parts)):
                try:
                    with self.precision.autocast(), part_of_step("forward"):
                        losses = self.model(part)
                except NonFinitePrediction as error:
                    raise type(error)(f"{str(error).rstrip('.')} (iteration {self.iter}).") from None
                values = torch.stack([loss.float() for loss in losses.values()]) / len(parts)
                with part_of_step("backward"):
                    self.precision.scaler.scale(values.sum()).backward()
            total = values.detach() if total is None else total + values.detach()
        assert total is not None  # a batch has at least one part
        return list(losses), total

    def _exchange(self, *, last: bool) -> AbstractContextManager:
        """Return a context in which processes exchange gradients: in the last part of a step only."""
        no_sync = getattr(self.model, "no_sync", None)  # of DistributedDataParallel
        return nullcontext() if last or no_sync is None else no_sync()

    def _clip_gradient(self) -> Tensor:
        """Scale the whole gradient to a norm of at most `clip_max_norm`; return the norm before, on the device."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        if self.clip_max_norm <= 0:
            kind = self.clip_norm_type
            norms = [torch.linalg.vector_norm(p.grad.float(), kind) for p in parameters if p.grad is not None]
            return torch.linalg.vector_norm(torch.stack(norms), kind) if norms else torch.zeros(())
        # foreach=None means foreach on CUDA only: on the CPU it is slower (16 against 11 ms for 43 M parameters)
        return nn.utils.clip_grad_norm_(parameters, self.clip_max_norm, self.clip_norm_type, foreach=None)

    def _log_step(self, names: list[str], values: Tensor, grad_norm: Tensor, data_time: float) -> None:
        """Copy losses and gradient norm to the host at once, check that they are finite and store them."""
        host = torch.cat([values, grad_norm.detach().float().reshape(1)]).cpu()
        norm = float(host[-1])
        self._check_finite(names, host[:-1].tolist(), shared=not math.isfinite(norm))
        # with loss scaling an infinite gradient is ordinary: the scaler skips that step and halves the scale, which
        # below 1 no longer explains it
        scaler = self.precision.scaler
        if not math.isfinite(norm) and not (scaler.is_enabled() and scaler.get_scale() >= 1):
            raise _diverged(
                f"The gradient norm is {norm} at iteration {self.iter} although all losses are finite: "
                "lower optimizer.lr, or train in float32 (train.amp.enabled=False).",
                shared=True,
            )
        self.storage.put_scalar("grad_norm", norm)
        try:
            self._write_metrics(dict(zip(names, host[:-1].unbind(), strict=True)), data_time)
        except KeyError as error:
            raise RuntimeError(
                f"Process 0 has the loss {error}, but another process has not: loss names must not depend on the data."
            ) from error

    def _check_finite(self, names: list[str], values: list[float], *, shared: bool) -> None:
        """Raise TrainingDiverged with the losses that are not finite, if there are any."""
        bad = [f"{name}={value}" for name, value in zip(names, values, strict=True) if not math.isfinite(value)]
        if bad:
            process = f" on process {comm.get_rank()}" if comm.get_world_size() > 1 else ""
            raise _diverged(
                f"Training diverged at iteration {self.iter}{process}: {', '.join(bad)} "
                f"({len(names) - len(bad)} other losses are finite): lower optimizer.lr, or check the annotations.",
                shared=shared,
            )

    def state_dict(self) -> dict[str, Any]:
        """Return iteration, hook states, optimizer, loss scale and steps left out: plain Python and tensors only."""
        last = min(self.iter, getattr(self, "max_iter", math.inf) - 1)  # after training, `iter` is the number of steps
        own = {"iteration": last, "grad_scaler": self.precision.state_dict(), "guard": self.guard.state_dict()}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; raise ConfigError if the optimizer's groups have changed since.

        Moments come from the state; the options of the groups (rates, weight decay, betas) stay those of the optimizer,
        so that a resumed run uses what its config says.
        """
        options = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        try:
            super().load_state_dict(state)
        except ValueError as error:
            raise ConfigError(
                f"The saved optimizer state does not fit this model or its parameter groups ({error}): "
                "start from the checkpoint's weights with train.init_checkpoint instead of --resume."
            ) from error
        for group, of_config in zip(self.optimizer.param_groups, options, strict=True):
            group.update(of_config, initial_lr=of_config["lr"])  # the schedule multiplies `initial_lr`
        self.precision.load_state_dict(state.get("grad_scaler", {}))
        self.guard.load_state_dict(state.get("guard", {}))


def _diverged(sentence: str, *, shared: bool) -> TrainingDiverged:
    """Return the error of a step that is not finite, which all processes know of if it is `shared`."""
    error = TrainingDiverged(sentence)
    error.shared = shared
    return error
