"""A substitute for detectron2's compiled extension, `detectron2._C`, whose sources are not on the package index.

It can be imported, and each operator raises `NotImplementedError` with its own name when it is called: rotated boxes,
deformable convolution and the fast, unofficial COCO evaluation. This file is copied into the wheel as it stands.
"""

import torch

_OPERATORS = (
    "COCOevalAccumulate",
    "COCOevalEvaluateImages",
    "InstanceAnnotation",
    "box_iou_rotated",
    "deform_conv_backward_filter",
    "deform_conv_backward_input",
    "deform_conv_forward",
    "modulated_deform_conv_backward",
    "modulated_deform_conv_forward",
    "nms_rotated",
    "roi_align_rotated_backward",
    "roi_align_rotated_forward",
)


def _not_compiled(name):
    def operator(*args, **kwargs):
        raise NotImplementedError(
            f"detectron2._C.{name} needs detectron2's compiled extension: install detectron2 from its own repository."
        )

    operator.__name__ = name
    return operator


def has_cuda():
    """Return False: nothing is compiled for CUDA."""
    return False


def get_compiler_version():
    """Return what detectron2.utils.collect_env prints as the compiler."""
    return "none (pure-Python repack)"


def get_cuda_version():
    """Return what detectron2.utils.collect_env prints as the CUDA compiler."""
    return "none (pure-Python repack)"


globals().update({_name: _not_compiled(_name) for _name in _OPERATORS})

# Declared without a kernel, so that calling it is a NotImplementedError with its name (an AttributeError otherwise).
_library = torch.library.Library("detectron2", "FRAGMENT")
_library.define("nms_rotated(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
