"""Names of data sets that a test registers."""

from collections.abc import Iterator
from contextlib import contextmanager

from detectron2.data import DatasetCatalog, MetadataCatalog


@contextmanager
def forgotten(*names: str) -> Iterator[None]:
    """Remove the names from detectron2's catalogs at the end."""
    try:
        yield
    finally:
        for name in names:
            DatasetCatalog.pop(name, None)
            MetadataCatalog.pop(name, None)
