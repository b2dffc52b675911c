"""Mixed precision: the autocast and the loss scaling that a device and a type need."""

import logging
from collections.abc import Mapping
from typing import Any

import torch

from align_detr.errors import ConfigError, EnvironmentProblem

logger = logging.getLogger(__name__)

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Precision:
    """Autocast of the forward pass and scaling of the loss; both do nothing when disabled (float32).

    bfloat16 works on the CPU and on CUDA and needs no loss scaling; float16 works on CUDA only, with a GradScaler.
    Raise ConfigError for another type and EnvironmentProblem if the device cannot compute in it: mixed precision is
    never switched off silently.
    """

    def __init__(self, *, enabled: bool = False, dtype: str = "bfloat16", device: str = "cpu") -> None:
        if dtype not in DTYPES:
            raise ConfigError(f"train.amp.dtype={dtype} is unknown: use one of {', '.join(DTYPES)}.")
        self.device_type = torch.device(device).type
        self.enabled = enabled
        self.dtype = DTYPES[dtype]
        if enabled:
            self._check_device(dtype)
        self.scaler = torch.amp.GradScaler("cuda", enabled=enabled and self.dtype is torch.float16)

    def _check_device(self, dtype: str) -> None:
        """Raise EnvironmentProblem if the device cannot compute in `dtype`."""
        if self.device_type == "cpu" and self.dtype is torch.float16:
            raise EnvironmentProblem(
                "train.amp.dtype=float16 needs CUDA, but train.device is cpu: "
                "set train.amp.dtype=bfloat16, or train.amp.enabled=False."
            )
        if self.device_type == "cuda" and self.dtype is torch.bfloat16 and not torch.cuda.is_bf16_supported():
            raise EnvironmentProblem(
                f"{torch.cuda.get_device_name()} has no {dtype}: "
                "set train.amp.dtype=float16, or train.amp.enabled=False."
            )

    def autocast(self) -> torch.autocast:
        """Return a fresh autocast context for one forward pass."""
        return torch.autocast(self.device_type, dtype=self.dtype, enabled=self.enabled)

    def state_dict(self) -> dict[str, Any]:
        """Return the loss scale and its counters (plain numbers); empty without a scaler."""
        return self.scaler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the loss scale; warn about a state of a run without a scaler, which leaves the initial scale."""
        if state:
            self.scaler.load_state_dict(dict(state))
        elif self.scaler.is_enabled():
            logger.warning(
                "The checkpoint holds no loss scale (it was not trained in float16): starting from the default."
            )
