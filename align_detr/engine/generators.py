"""States of the random generators of a process, as plain values that a checkpoint can hold."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def read_generators() -> dict[str, Any]:
    """Return the states of Python's, numpy's and torch's generators, with that of the present CUDA device if used."""
    drawn: Any = np.random.get_state(legacy=False)
    keys, position = drawn["state"]["key"], drawn["state"]["pos"]
    version, numbers, gauss_next = random.getstate()
    state: dict[str, Any] = {
        "python": [version, torch.tensor(numbers), gauss_next],
        "numpy": [torch.from_numpy(keys.astype(np.int64)), int(position), drawn["has_gauss"], drawn["gauss"]],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def write_generators(state: Mapping[str, Any]) -> None:
    """Set all generators to what `read_generators` returned; that of CUDA if there is a device."""
    version, numbers, gauss_next = state["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss_next))
    keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
