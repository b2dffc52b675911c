"""Public names of the projects."""

import importlib
import inspect
import pkgutil

import pytest

from align_detr.projects import PROJECTS


@pytest.mark.parametrize("name", PROJECTS)
def test_all_lists_every_class(name: str) -> None:
    """Configs and users import from the package, so that its files may move."""
    face = importlib.import_module(f"align_detr.projects.{name}")
    modules = [importlib.import_module(x.name) for x in pkgutil.walk_packages(face.__path__, f"{face.__name__}.")]
    classes = {
        key
        for module in modules
        for key, value in inspect.getmembers(module, inspect.isclass)
        if value.__module__ == module.__name__ and not key.startswith("_")
    }
    assert classes <= set(face.__all__)
    assert all(hasattr(face, key) for key in face.__all__)
