"""Names of the classes in checkpoints: the weights alone do not tell which class is which."""

from collections.abc import Mapping, Sequence
from typing import Any

from align_detr.data.datasets import describe_difference, known_classes
from align_detr.errors import DatasetError


class ClassNames:
    """Names of the classes of training data, in the order of the model's logits; None if the data names none."""

    def __init__(self, dataset_names: Sequence[str]) -> None:
        names = known_classes(dataset_names[0]) if dataset_names else None
        self.names = None if names is None else list(names)

    def state_dict(self) -> dict[str, Any]:
        """Return the names as a checkpoint holds them."""
        return {"names": self.names}


def check_trained_classes(state: Mapping[str, Any], path: str, dataset_names: Sequence[str]) -> None:
    """Raise DatasetError if `state`, what the checkpoint `path` holds, is of other classes than a data set.

    Checkpoints and data sets without names pass.
    """
    trained = state.get("classes", {}).get("names")
    for name in dataset_names:
        classes = known_classes(name)
        if trained is not None and classes is not None and list(classes) != trained:
            raise DatasetError(
                f"{path} was trained for other classes than the data set '{name}' has, "
                f"{describe_difference(trained, classes)}: give the data set the categories of the training data, with "
                "the same ids."
            )
