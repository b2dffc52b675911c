"""Numbers about a training step for detectron2's writers."""

from detectron2.utils.events import EventStorage, get_event_storage

POSITIVES = "positives_per_object"
"""The log's name of the queries that are matched to an object, in a layer of the set `main`."""


def log_scalar(name: str, value: float) -> None:
    """Put a number into detectron2's event storage, without smoothing; outside of a training loop, do nothing."""
    if (storage := _storage()) is not None:
        storage.put_scalar(name, value, smoothing_hint=False)


def logged_sets() -> list[str]:
    """Return the prediction sets other than `main` whose positives were logged; outside of a training loop, none."""
    storage, prefix = _storage(), f"{POSITIVES}_"
    names = [] if storage is None else storage.histories()
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def _storage() -> EventStorage | None:
    """Return the event storage of the training loop, or None outside of one."""
    try:
        return get_event_storage()
    except (AssertionError, IndexError):
        return None
