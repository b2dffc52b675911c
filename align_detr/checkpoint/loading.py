"""Loading of weights into a model: releases converted, classes taken over by name, one line that says what fitted."""

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from detectron2.layers import FrozenBatchNorm2d
from torch import Tensor, nn

from align_detr.checkpoint.class_rows import ClassReport, coco_names, is_agnostic, repeated_names, rows_of, take_rows
from align_detr.checkpoint.contents import AVERAGES_BESIDE, Weights
from align_detr.checkpoint.conversion import Release, find_release
from align_detr.checkpoint.report import LoadReport
from align_detr.errors import ConfigError

_PIXEL_STATISTICS = {"pixel_mean", "pixel_std"}
_STATISTICS = ("running_mean", "running_var")


def load_weights(
    model: nn.Module, weights: Weights, *, class_names: Sequence[str] | None = None, strict: bool = False
) -> LoadReport:
    """Copy `weights` into `model` and return what was loaded and what was not.

    Published weights are converted. With `class_names`, the model's classes in order, the rows of classifiers and label
    tables are taken over by name where the file names its classes, or is a release trained on COCO; rows of other
    classes keep the model's numbers. What has another shape is left out. `strict`: every tensor of the model has to
    come from the file. Raise ConfigError, before anything is copied, if that does not hold, if nothing fits, and for a
    release of another model, with the name of its config.
    """
    model_state = model.state_dict()
    weights = _named_by_parts(model, weights, model_state.keys())
    release = None if weights.state.keys() <= model_state.keys() else find_release(weights.state)
    of_coco = release is not None and release.config is not None  # a detector, not a backbone
    state = _renamed(model_state, weights, release)
    num_classes, classes = getattr(model, "num_classes", None), None
    if num_classes is not None:
        classes = _take_classes(state, model_state, weights, of_coco, class_names, num_classes)
    report = _compare(model, state, weights, classes)
    if release is not None and release.config is not None:
        report.require_release(release.name, release.config(weights.state))
    if model_state and report.fits <= 0:
        raise ConfigError(
            f"Nothing of the checkpoint {weights.path} fits the model (it has keys such as "
            f"{_examples(weights.state)}, the model such as {_examples(model_state)}): correct train.init_checkpoint "
            "or the config."
        )
    if strict:
        report.require_complete()
    for key in report.wrong_shapes:
        del state[key]
    model.load_state_dict(state, strict=False)
    report.log()
    return report


def into_pyramid(state: Mapping[str, Tensor], model_keys: Collection[str]) -> Mapping[str, Tensor]:
    """Rename the entries of a backbone to those of the same backbone in a feature pyramid, if the model has one."""
    moved = {key: key.replace("backbone.", "backbone.bottom_up.", 1) for key in state if key.startswith("backbone.")}
    moved = {key: new for key, new in moved.items() if key not in model_keys and new in model_keys}
    return {moved.get(key, key): value for key, value in state.items()} if moved else state


def _named_by_parts(model: nn.Module, weights: Weights, model_keys: Collection[str]) -> Weights:
    """Return the weights under the model's names where a part of it, such as a backbone of timm, knows their file."""
    if weights.state.keys() <= set(model_keys):
        return weights
    for name, part in model.named_modules():
        read = getattr(part, "published_names", None)
        found = {} if read is None else read(weights.state)
        if found:
            own = {f"{name}.{key}" if name else key: value for key, value in found.values()}
            return replace(weights, state={**own, **{k: v for k, v in weights.state.items() if k not in found}})
    return weights


def _renamed(model_state: Mapping[str, Tensor], weights: Weights, release: Release | None) -> dict[str, Tensor]:
    """Return the file's weights under the model's names, with all rows of their classes, in a new dictionary."""
    state: Mapping[str, Tensor] = weights.state
    if release is not None:
        state = release.convert(state, None)
    elif weights.by_similarity:
        state = align_and_update_state_dicts(model_state, dict(state), c2_conversion=weights.author == "Caffe2")
    renamed = OrderedDict(into_pyramid(state, model_state.keys()))
    metadata = getattr(state, "_metadata", None)
    if metadata is not None:  # versions of modules; without the mark, which is for other loaders
        top = {key: value for key, value in metadata.get("", {}).items() if key != AVERAGES_BESIDE}
        renamed._metadata = {**metadata, "": top}  # type: ignore[attr-defined]
    return renamed


def _take_classes(
    state: dict[str, Tensor],
    model_state: Mapping[str, Tensor],
    weights: Weights,
    of_coco: bool,
    class_names: Sequence[str] | None,
    num_classes: int,
) -> ClassReport:
    """Put the rows of the model's classes in place of the file's in `state`, and return what became of the classes."""
    report = ClassReport(num_classes)
    ours: Sequence[str | None] | None = class_names
    if ours is None and of_coco and num_classes == 80:
        ours = coco_names(num_classes)
    for name, tensor in model_state.items():
        rows = rows_of(name, tensor, num_classes)
        if rows is None or name not in state or state[name].shape[1:] != tensor.shape[1:]:
            continue
        report.theirs = rows.count(state[name].shape[0])
        theirs = _names_in_file(report.theirs, weights, of_coco)
        known = ours is not None and theirs is not None
        if list(ours or ()) == list(theirs or ()) if known else state[name].shape == tensor.shape:
            continue
        index = {each: i for i, each in enumerate(theirs or ()) if each is not None}
        for each in repeated_names(theirs or ()) | repeated_names(ours or ()):
            index.pop(each, None)
            report.repeated |= {each} if each in (theirs or ()) else set()
        source = [index.get(each) if each is not None else None for each in ours or [None] * num_classes]
        report.mapped = report.mapped or [each for each in ours or () if each in index and each is not None]
        if known and is_agnostic(name, state):
            source[0] = 0
        state[name] = take_rows(state[name], tensor, rows, source)
        report.add(name, rows.part, source)
    if report.mapped:
        report.new = [each for each in ours or () if each is not None and each not in report.mapped]
    return report


def _names_in_file(count: int | None, weights: Weights, of_coco: bool) -> Sequence[str | None] | None:
    """Return the classes of a tensor's rows in the file, or None if they are not known."""
    if count is None:
        return None
    if weights.class_names is not None:
        return weights.class_names if len(weights.class_names) == count else None
    return coco_names(count) if of_coco else None


def _compare(
    model: nn.Module, state: Mapping[str, Tensor], weights: Weights, classes: ClassReport | None
) -> LoadReport:
    """Return which of the model's tensors have their numbers in `state`, counting shared ones once."""
    model_state = model.state_dict(keep_vars=True)
    filled = _filled_in(model, state)
    wrong = {
        key: (tuple(value.shape), tuple(model_state[key].shape))
        for key, value in state.items()
        if key in model_state and value.shape != model_state[key].shape
    }
    names: dict[int, list[str]] = {}
    for key, tensor in model_state.items():
        names.setdefault(id(tensor), []).append(key)
    taken = {} if classes is None else classes.taken
    loaded: list[str] = []
    new: list[str] = []
    numbers = [0.0, 0.0]  # from the file, of the model
    for same in names.values():
        found = [key for key in same if key in state and key not in wrong]
        if not found and (filled.intersection(same) or same[0].endswith("num_batches_tracked")):
            continue
        share = taken.get(found[0], 1.0) if found else 0.0
        (loaded if share else new).append(same[0])
        count = model_state[same[0]].numel()
        numbers = [numbers[0] + share * count, numbers[1] + count]
    left_over = [key for key in state if key not in model_state and key not in _PIXEL_STATISTICS]
    return LoadReport(
        path=weights.path,
        loaded=loaded,
        new=new,
        left_over=left_over,
        wrong_shapes=wrong,
        share=numbers[0] / numbers[1] if numbers[1] else 1.0,
        fits=len(state) - len(left_over) - len(wrong) - len(_PIXEL_STATISTICS & state.keys()),
        classes=classes,
    )


def _filled_in(model: nn.Module, state: Mapping[str, Tensor]) -> set[str]:
    """Return the statistics that frozen batch norms fill in: mean 0 and variance 1, where a file has none at all."""
    if any(key.endswith(_STATISTICS) for key in state):
        return set()
    norms = [name for name, module in model.named_modules() if isinstance(module, FrozenBatchNorm2d)]
    return {f"{name}.{key}" if name else key for name in norms for key in _STATISTICS}


def _examples(keys: Collection[str]) -> str:
    return ", ".join(f"'{key}'" for key in sorted(keys)[:2]) if keys else "none"
