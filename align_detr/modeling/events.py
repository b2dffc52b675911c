"""Numbers about a training step for detectron2's writers."""

from detectron2.utils.events import get_event_storage

POSITIVES = "positives_per_object"
"""The log's name of the queries that are matched to an object, in a layer of the set `main`."""


def log_scalar(name: str, value: float) -> None:
    """Put a number into detectron2's event storage, without smoothing; outside of a training loop, do nothing."""
    try:
        storage = get_event_storage()
    except (AssertionError, IndexError):  # there is none outside of a training loop
        return
    storage.put_scalar(name, value, smoothing_hint=False)
