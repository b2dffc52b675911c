"""The edits that let detectron2 v0.5 run without a compiler on today's libraries.

Every edit states how often its old text occurs in its file. An archive in which the count differs is refused: the
table was written for one known archive and is not applied to another by guess.
"""

from dataclasses import dataclass
from pathlib import Path

from align_detr.errors import EnvironmentProblem

EXTENSION_PATH = "detectron2/_C.py"
NOTICE = "\n# Modified when repacked by `align-detr install-detectron2`: see REPACKED in the .dist-info folder.\n"


@dataclass(frozen=True)
class Edit:
    """One replacement in one file: `old` occurs exactly `count` times and becomes `new`."""

    path: str
    old: str
    new: str
    count: int = 1


# Pillow 10 took LINEAR away; setuptools took pkg_resources away.
_REMOVED_FROM_LIBRARIES = (
    Edit("detectron2/data/transforms/transform.py", "Image.LINEAR", "Image.BILINEAR"),
    Edit("detectron2/model_zoo/model_zoo.py", "import pkg_resources\n", ""),
    Edit(
        "detectron2/model_zoo/model_zoo.py",
        'pkg_resources.resource_filename(\n        "detectron2.model_zoo", os.path.join("configs", config_path)\n    )',
        'os.path.join(os.path.dirname(__file__), "configs", config_path)',
    ),
    # random.sample of a set: gone in Python 3.11. A tuple is what 3.10 made of it.
    Edit(
        "detectron2/data/common.py",
        "sample(self._fallback_candidates, k=1)",
        "sample(tuple(self._fallback_candidates), k=1)",
    ),
)

# numpy 1.24 took the aliases of the built-in types away; in numpy 2 copy=False means "fail rather than copy".
_NUMPY = (
    Edit("detectron2/evaluation/pascal_voc_evaluation.py", "astype(np.bool)", "astype(bool)", 2),
    Edit("detectron2/evaluation/sem_seg_evaluation.py", "dtype=np.int)", "dtype=int)", 2),
    Edit("detectron2/evaluation/sem_seg_evaluation.py", "dtype=np.float)", "dtype=float)", 2),
    Edit("detectron2/evaluation/sem_seg_evaluation.py", "astype(np.float)", "astype(float)", 3),
    Edit("detectron2/structures/masks.py", "astype(np.bool)", "astype(bool)"),
    Edit("detectron2/structures/masks.py", "dtype=np.bool)", "dtype=bool)"),
    Edit("detectron2/utils/visualizer.py", "astype(np.bool)", "astype(bool)", 3),
    Edit("detectron2/utils/video_visualizer.py", "dtype=np.bool)", "dtype=bool)"),
    Edit("detectron2/data/datasets/pascal_voc.py", "dtype=np.str)", "dtype=str)"),
    Edit("detectron2/data/build.py", "dtype=np.int", "dtype=int", 2),
    Edit("detectron2/layers/mask_ops.py", "np.array(mask, copy=False)", "np.asarray(mask)"),
)

# The base class was renamed in torch 2; under the old name isinstance fails and a scheduler's state is never saved.
_SCHEDULER = tuple(
    Edit(path, "lr_scheduler._LRScheduler", "lr_scheduler.LRScheduler", count)
    for path, count in (
        ("detectron2/engine/hooks.py", 2),
        ("detectron2/solver/build.py", 1),
        ("detectron2/solver/lr_scheduler.py", 4),
        ("detectron2/projects/deeplab/build_solver.py", 1),
        ("detectron2/projects/deeplab/lr_scheduler.py", 1),
    )
)

# torch 2: explicit indexing, no untyped ByteStorage; gloo where there is no GPU; each rank on its own GPU before the
# first collective call.
_TORCH = (
    Edit(
        "detectron2/modeling/anchor_generator.py",
        "torch.meshgrid(shifts_y, shifts_x)",
        'torch.meshgrid(shifts_y, shifts_x, indexing="ij")',
    ),
    Edit(
        "detectron2/projects/panoptic_deeplab/post_processing.py",
        "torch.arange(width, dtype=offsets.dtype, device=offsets.device),\n",
        'torch.arange(width, dtype=offsets.dtype, device=offsets.device),\n        indexing="ij",\n',
    ),
    Edit(
        "detectron2/utils/comm.py",
        "    storage = torch.ByteStorage.from_buffer(buffer)\n"
        "    tensor = torch.ByteTensor(storage).to(device=device)\n",
        "    tensor = torch.frombuffer(bytearray(buffer), dtype=torch.uint8).to(device=device)\n",
    ),
    Edit(
        "detectron2/engine/launch.py",
        '    assert torch.cuda.is_available(), "cuda is not available. Please check your installation."\n',
        "    has_gpu = torch.cuda.is_available()\n"
        "    if has_gpu:\n"
        "        assert num_gpus_per_machine <= torch.cuda.device_count()\n"
        "        torch.cuda.set_device(local_rank)\n",
    ),
    Edit("detectron2/engine/launch.py", 'backend="NCCL",', 'backend="NCCL" if has_gpu else "GLOO",'),
    Edit(
        "detectron2/engine/launch.py",
        "    assert num_gpus_per_machine <= torch.cuda.device_count()\n    torch.cuda.set_device(local_rank)\n\n",
        "",
    ),
)

# The compiled COCO evaluation and caffe2 are not there; opencv need not be (mask outlines ask for it when drawn).
_OPTIONAL = (
    Edit(
        "detectron2/evaluation/coco_evaluation.py",
        "self._use_fast_impl = use_fast_impl\n",
        "self._use_fast_impl = False  # the fast one is compiled: always the official one\n",
    ),
    Edit(
        "detectron2/evaluation/coco_evaluation.py",
        "kpt_oks_sigmas=None, use_fast_impl=True",
        "kpt_oks_sigmas=None, use_fast_impl=False",
    ),
    Edit(
        "detectron2/export/__init__.py",
        "from .api import *\n",
        "try:\n    from .api import *\nexcept ImportError:  # no caffe2\n    pass\n",
    ),
    Edit("detectron2/utils/visualizer.py", "import cv2\n", ""),
    Edit(
        "detectron2/utils/visualizer.py",
        "        res = cv2.findContours(",
        "        import cv2\n\n        res = cv2.findContours(",
    ),
    Edit(
        "detectron2/utils/visualizer.py",
        "            _num_cc, cc_labels, stats, centroids = cv2.",
        "            import cv2\n\n            _num_cc, cc_labels, stats, centroids = cv2.",
    ),
    Edit(
        "detectron2/projects/point_rend/color_augmentation.py",
        "import cv2\n",
        "\ntry:\n    import cv2\nexcept ImportError:  # needed by ColorAugSSDTransform only\n    pass\n",
    ),
)

# A list of arrays becomes one array before it becomes a tensor; matplotlib refuses colours a rounding above 1.
_ARRAYS_AND_COLOURS = (
    Edit(
        "detectron2/data/detection_utils.py",
        '    boxes = [BoxMode.convert(obj["bbox"], obj["bbox_mode"], BoxMode.XYXY_ABS) for obj in annos]\n'
        "    target = Instances(image_size)\n"
        "    target.gt_boxes = Boxes(boxes)\n",
        '    boxes = [BoxMode.convert(obj["bbox"], obj["bbox_mode"], BoxMode.XYXY_ABS) for obj in annos]\n'
        "    target = Instances(image_size)\n"
        "    target.gt_boxes = Boxes(np.stack(boxes) if boxes else np.zeros((0, 4)))\n",
    ),
    Edit(
        "detectron2/utils/visualizer.py", "return modified_color\n", "return tuple(np.clip(modified_color, 0.0, 1.0))\n"
    ),
)

EDITS: tuple[Edit, ...] = (
    *_REMOVED_FROM_LIBRARIES,
    *_NUMPY,
    *_SCHEDULER,
    *_TORCH,
    *_OPTIONAL,
    *_ARRAYS_AND_COLOURS,
)


def extension_source() -> str:
    """Return the text of the module that replaces the compiled `detectron2._C`."""
    return Path(__file__).with_name("extension.py").read_text(encoding="utf-8")


def apply_edits(files: dict[str, bytes], edits: tuple[Edit, ...] = EDITS) -> dict[str, bytes]:
    """Return `files` (path in the wheel -> content) with `edits` made and a notice in each edited file.

    Raise EnvironmentProblem when a file is absent or an old text does not occur as often as stated.
    """
    edited = dict(files)
    for edit in edits:
        if edit.path not in edited:
            raise EnvironmentProblem(
                f"The detectron2 archive has no file {edit.path}: it is not the one our edits were written for; "
                "use the pinned archive or install detectron2 from its own repository."
            )
        text = edited[edit.path].decode("utf-8")
        found = text.count(edit.old)
        if found != edit.count:
            raise EnvironmentProblem(
                f"In {edit.path} of the detectron2 archive the text {edit.old.strip()[:60]!r} occurs {found} times "
                f"instead of {edit.count}: it is not the archive our edits were written for; use the pinned one or "
                "install detectron2 from its own repository."
            )
        edited[edit.path] = text.replace(edit.old, edit.new).encode("utf-8")
    for path in {edit.path for edit in edits}:
        edited[path] += NOTICE.encode("utf-8")
    return edited
