"""A warning of dependencies that no user of this library can act on."""

import warnings


def ignore_deprecated_script() -> None:
    """Ignore the FutureWarning of torch.jit.script, which torchvision and detectron2 raise when they are imported."""
    warnings.filterwarnings("ignore", message=r"`torch\.jit\.script` is deprecated", category=FutureWarning)
