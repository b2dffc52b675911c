"""Reading of checkpoint files without running code from them."""

import argparse
import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from align_detr.errors import ConfigError

# What pickles of numpy arrays name, under numpy 1 and 2 and pickle protocols 2 to 5, and plain containers.
_NUMPY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_ALLOWED = {
    ("collections", "OrderedDict"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),  # Python 3 writes the bytes of an array so in protocol 2
    *((module, name) for module in _NUMPY_MODULES for name in ("_reconstruct", "scalar")),
    *((module, "_frombuffer") for module in ("numpy.core.numeric", "numpy._core.numeric")),
}


class RestrictedUnpickler(pickle.Unpickler):
    """Reads numpy arrays and scalars in dicts, lists and strings; any other class raises ConfigError with its name."""

    def __init__(self, file: io.BufferedIOBase, filename: str) -> None:
        super().__init__(file, encoding="latin1")
        self.filename = filename

    def find_class(self, module: str, name: str) -> Any:
        """Return an allowed function or class."""
        if (module, name) in _ALLOWED or (module == "numpy.dtypes" and name.endswith("DType")):
            return super().find_class(module, name)
        raise ConfigError(
            f"{self.filename} holds a {module}.{name}, which is not a weight: only numpy arrays in dictionaries are "
            "read from .pkl files; if you trust the file, save its weights as .npz."
        )


def read_pickle(path: str) -> Any:
    """Return what a .pkl file of numpy arrays holds; raises ConfigError for other content and for a damaged file."""
    with open(path, "rb") as file:
        try:
            return RestrictedUnpickler(file, path).load()
        except (pickle.UnpicklingError, EOFError, ValueError, TypeError, ImportError, IndexError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(
                f"{path} cannot be read as a pickle of numpy arrays ({error}): get the file again."
            ) from error


def read_npz(path: str) -> dict[str, np.ndarray]:
    """Return the arrays of a .npz file; raises ConfigError for Python objects in it and for a damaged file."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, AttributeError) as error:
        raise ConfigError(
            f"{path} cannot be read as arrays of numbers ({error}): save plain arrays with numpy.savez."
        ) from error


def read_torch(path: str) -> Any:
    """Return what a .pth or .pt file of tensors holds, on the CPU; the argparse.Namespace of official files is allowed.

    Raises ConfigError that names any other class, or says that the file is damaged.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found:
            raise ConfigError(
                f"{path} holds a {found.group(1)}, which is not a weight: only tensors and plain Python values are "
                "read; if you trust the file, save its state_dict() alone."
            ) from error
        raise ConfigError(_damaged(path, error)) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise ConfigError(_damaged(path, error)) from error


READERS = {".pkl": read_pickle, ".npz": read_npz, ".pth": read_torch, ".pt": read_torch}


def read_checkpoint(path: str) -> Any:
    """Return the content of a checkpoint file by its extension; raises ConfigError for an unknown extension."""
    reader = READERS.get(Path(path).suffix.lower())
    if reader is None:
        raise ConfigError(f"{path} is not a checkpoint that can be read: its name must end in {', '.join(READERS)}.")
    return reader(path)


def _damaged(path: str, error: Exception) -> str:
    # torch's own text advises to load the file unsafely, over many lines: only the cause after it is of use
    lines = str(error).rpartition("WeightsUnpickler error:")[2].split("\n")
    cause = next((line.strip() for line in lines if line.strip()), type(error).__name__)
    return f"{path} is damaged or not a PyTorch checkpoint ({cause}): get the file again."
