"""Data sets made of records, registered for one test."""

from collections.abc import Callable, Iterator

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog


@pytest.fixture
def register() -> Iterator[Callable[..., str]]:
    """Return a function (records, name, **metadata) -> the name of a data set registered by a function."""
    names: list[str] = []

    def put(source: list[dict], name: str = "from_a_function", **metadata: object) -> str:
        names.append(name)
        DatasetCatalog.register(name, lambda: source)
        MetadataCatalog.get(name).set(**metadata)
        return name

    yield put
    for name in names:
        DatasetCatalog.pop(name, None)
        MetadataCatalog.pop(name, None)
