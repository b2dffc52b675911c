"""Reading of checkpoint files without running code from them."""

import argparse
import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from align_detr.checkpoint.files import find_damage
from align_detr.errors import ConfigError, EnvironmentProblem

# names in pickles of numpy arrays, under numpy 1 and 2 and pickle protocols 2 to 5, and of plain containers
_NUMPY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_ALLOWED = {
    ("collections", "OrderedDict"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),  # the bytes of an array in protocol 2
    *((module, name) for module in _NUMPY_MODULES for name in ("_reconstruct", "scalar")),
    *((module, "_frombuffer") for module in ("numpy.core.numeric", "numpy._core.numeric")),
}

# the arguments in official files, a class that runs nothing; older PyTorch has no list of such classes
if hasattr(torch.serialization, "add_safe_globals"):
    torch.serialization.add_safe_globals([argparse.Namespace])


class RestrictedUnpickler(pickle.Unpickler):
    """An unpickler of numpy arrays, numpy scalars and plain containers; any other class raises ConfigError."""

    def __init__(self, file: io.BufferedIOBase, filename: str) -> None:
        super().__init__(file, encoding="latin1")
        self.filename = filename

    def find_class(self, module: str, name: str) -> Any:
        """Return an allowed function or class; raise ConfigError for any other."""
        if (module, name) in _ALLOWED or (module == "numpy.dtypes" and name.endswith("DType")):
            return super().find_class(module, name)
        raise ConfigError(
            f"{self.filename} holds a {module}.{name}, which is not a weight: only numpy arrays in dictionaries are "
            "read from .pkl files; if you trust the file, save its weights as .npz."
        )


def read_pickle(path: str) -> Any:
    """Return what a .pkl file of numpy arrays holds; raise ConfigError for other content and for a damaged file."""
    with open(path, "rb") as file:
        try:
            return RestrictedUnpickler(file, path).load()
        except ConfigError:
            raise
        except Exception as error:  # damage shows as errors of any kind
            raise ConfigError(
                f"{path} cannot be read as a pickle of numpy arrays ({_one_line(error)}): get the file again."
            ) from error


def read_npz(path: str) -> dict[str, np.ndarray]:
    """Return the arrays of a .npz file; raise ConfigError for Python objects in it and for a damaged file."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # as above
        raise ConfigError(
            f"{path} cannot be read as arrays of numbers ({_one_line(error)}): save plain arrays with numpy.savez."
        ) from error


def read_torch(path: str) -> Any:
    """Return what a .pth or .pt file of tensors holds, on the CPU; the argparse.Namespace of official files is allowed.

    Raise ConfigError for any other class, which it names, and for a damaged file, also if only the checksum of a record
    does not hold, which torch.load does not look at.
    """
    damage = find_damage(path)
    if damage is not None:
        raise ConfigError(_damaged(path, ValueError(damage)))
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        forbidden = re.search(r"(?:GLOBAL|Unsupported class) (\S+)", str(error))
        if forbidden:
            raise ConfigError(
                f"{path} holds a {forbidden.group(1)}, which is not a weight: only tensors and plain Python values are "
                "read; if you trust the file, save its state_dict() alone."
            ) from error
        raise ConfigError(_damaged(path, error)) from error
    except Exception as error:  # as above
        raise ConfigError(_damaged(path, error)) from error


def read_safetensors(path: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a .safetensors file, which cannot hold code.

    Raise EnvironmentProblem without the package safetensors, and ConfigError for a damaged file.
    """
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise EnvironmentProblem(
            f"{path} needs the package safetensors to be read: pip install 'align_detr[safetensors]'."
        ) from None
    try:
        return load_file(path)
    except Exception as error:  # as above
        raise ConfigError(
            f"{path} is damaged or not a safetensors file ({_one_line(error)}): get the file again."
        ) from error


READERS = {
    ".pkl": read_pickle,
    ".npz": read_npz,
    ".pth": read_torch,
    ".pt": read_torch,
    ".ckpt": read_torch,
    ".safetensors": read_safetensors,
}


def read_checkpoint(path: str) -> Any:
    """Return the content of a checkpoint file by its extension; raise ConfigError for an unknown extension."""
    reader = READERS.get(Path(path).suffix.lower())
    if reader is None:
        raise ConfigError(f"{path} is no checkpoint by its name: give a file that ends in {', '.join(READERS)}.")
    return reader(path)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _damaged(path: str, error: Exception) -> str:
    # torch's many lines advise to load the file unsafely; only the cause after them is of use
    lines = str(error).rpartition("WeightsUnpickler error:")[2].split("\n")
    cause = next((line.strip() for line in lines if line.strip()), type(error).__name__)
    return f"{path} is damaged or not a PyTorch checkpoint ({cause}): get the file again."
