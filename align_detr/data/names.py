"""The data sets that the loaders of a config name."""

from omegaconf import DictConfig, ListConfig


def dataset_names(loader: DictConfig | ListConfig | None) -> list[str]:
    """Return the data sets that a loader's config names: `dataset` (ours), `names`, or `dataset.names` (detectron2's).

    A list of loaders names those of each, and no loader (None) names none.
    """
    if loader is None:
        return []
    if isinstance(loader, ListConfig):
        return [name for one in loader for name in dataset_names(one)]
    node = loader.get("dataset", None)
    if node is None:
        node = loader.get("names", None)
    if isinstance(node, DictConfig):
        node = node.get("names", None)
    if node is None:
        return []
    return [node] if isinstance(node, str) else [str(name) for name in node]
