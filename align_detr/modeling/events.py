"""Numbers about a training step for detectron2's writers."""

from detectron2.utils.events import get_event_storage


def log_scalar(name: str, value: float) -> None:
    """Puts a number into detectron2's event storage, without smoothing; outside of a training loop nothing happens."""
    try:
        storage = get_event_storage()
    except (AssertionError, IndexError):  # outside of a training loop there is none
        return
    storage.put_scalar(name, value, smoothing_hint=False)
