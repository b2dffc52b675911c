"""Import path of the projects: `align_detr.projects.<name>`, in a wheel and in a checkout.

A wheel has each project's package in this folder. In a checkout the package is projects/<Folder>/<name>, so the folders
of the table join this package's search path. The library never imports a project.
"""

from pathlib import Path

from align_detr.projects.table import PROJECTS

_CHECKOUT = Path(__file__).resolve().parents[2] / "projects"
__path__ += [str(_CHECKOUT / folder) for folder in PROJECTS.values() if (_CHECKOUT / folder).is_dir()]

__all__ = ["PROJECTS"]
