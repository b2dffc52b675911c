"""Errors that a user can act on: one sentence with the file, key, image or annotation at fault, and the remedy."""

EXIT_USER_ERROR = 2  # status of a command that ends with such a sentence or is used wrongly; Python's 1 is for our bugs
EXIT_INTERRUPTED = 75  # of training that a signal has ended: saved, `--resume` goes on (sysexits' EX_TEMPFAIL)
EXIT_KEYBOARD = 130  # of a command that Ctrl-C has ended at once


class AlignDetrError(Exception):
    """Base of the errors that the command line prints as one sentence, without a traceback."""

    exit_status = EXIT_USER_ERROR


class ConfigError(AlignDetrError, ValueError):
    """A configuration that cannot be used as it is written."""


class DatasetError(AlignDetrError, ValueError):
    """A data set, annotation or image that cannot be used."""


class EnvironmentProblem(AlignDetrError, RuntimeError):
    """Something on this machine is missing or does not fit (detectron2, a device, a precision)."""


class NonFinitePrediction(AlignDetrError, ValueError):
    """The model predicts NaN or infinity."""
