"""Matching distillation (the paper's section on the instability of bipartite matching): a DETR that is trained with the
assignments of a trained one in place of its own.
"""

import copy
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor

from align_detr.checkpoint.contents import read_weights
from align_detr.checkpoint.loading import load_weights
from align_detr.checks import require_finite
from align_detr.errors import ConfigError
from align_detr.modeling.batching import features_of_padded_batch
from align_detr.modeling.matcher import HungarianMatcher
from align_detr.modeling.meta_arch.detr import DETR
from align_detr.structures import MAIN, Match, Predictions, Targets, fields_of

KEY = "model.teacher"

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class TaughtPredictions(Predictions):
    """A student's prediction set, with the `teacher`'s predictions of the same queries, images and layers."""

    teacher: Predictions

    @classmethod
    def of(cls, student: Predictions, teacher: Predictions) -> "TaughtPredictions":
        """Return the student's set with the teacher's; raise ConfigError unless each query has its counterpart."""
        if student.boxes.shape != teacher.boxes.shape:
            raise ConfigError(
                f"The student predicts {_describe(student)} in training, but its teacher {_describe(teacher)}: distil "
                "a detector that has the same queries in training and in evaluation."
            )
        return cls(**fields_of(student), teacher=teacher)


def _describe(preds: Predictions) -> str:
    rows, _, queries, _ = preds.boxes.shape
    return f"{rows} rows of {queries} queries"


class TeacherMatcher(HungarianMatcher):
    """`HungarianMatcher` that matches the teacher's predictions in place of those of the set that it teaches.

    Pairs of row, image, query and target are those that the teacher's loss would have, layer by layer; sets without a
    teacher are matched as ever. What is not finite is found in student and teacher.
    """

    @torch.no_grad()
    def forward(self, sets: Mapping[str, Predictions], targets: Targets) -> dict[str, Match]:
        """Return a match for every set; sets that know theirs keep it."""
        given: dict[str, Predictions] = {}
        for name, preds in sets.items():
            given[name] = preds
            if isinstance(preds, TaughtPredictions):
                given[name] = preds.teacher
                # looked through for values that are not finite, but not matched
                given[f"{name} of the student"] = dataclasses.replace(preds, match=Match.empty(preds.boxes.device))
        matches = super().forward(given, targets)
        return {name: matches[name] for name in sets}


class Teacher:
    """A frozen copy of a student with trained weights of its own, from the file `weights`, read at its first use.

    It is no part of the student: it is neither trained nor averaged nor saved, and copies of the student share it. The
    file has to hold every tensor of the student's architecture, and no other; of a checkpoint with averaged weights,
    those are taken.
    """

    def __init__(self, weights: str) -> None:
        self.weights = weights
        self._detector: DETR | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Teacher":
        return self

    def read(self, student: DETR) -> DETR:
        """Return the teacher on the student's device; raise ConfigError if there are no weights, or if they are of
        another architecture.
        """
        if self._detector is None:
            self._detector = self._copy(student)
        if self._detector.device != student.device:
            self._detector.to(student.device)
        return self._detector

    @torch.no_grad()
    def predict(self, student: DETR, images: Sequence[Tensor]) -> Predictions:
        """Return the main set of the same normalised (3, h, w) images, padded as the student sees them, without dropout
        and with the teacher's statistics of batch norms.
        """
        teacher = self.read(student)
        features, padded_size = features_of_padded_batch(teacher.backbone, images)
        memory = teacher.neck(features, [(x.shape[-2], x.shape[-1]) for x in images], padded_size)
        return teacher.predict(teacher.encoder(memory))[MAIN]

    def _copy(self, student: DETR) -> DETR:
        if not self.weights:
            raise ConfigError(
                f"{KEY} is empty, but distillation needs a teacher: set it to a file of trained weights of the "
                "student's architecture."
            )
        teacher = copy.deepcopy(student)
        weights = read_weights(self.weights)
        try:
            report = load_weights(teacher, weights, strict=True)
            report.require_nothing_left_over()
        except ConfigError as error:
            raise ConfigError(
                f"The teacher does not fit the student ({str(error).partition(': ')[0]}): set {KEY} to weights that "
                "were trained with the student's architecture and classes."
            ) from error
        require_finite(teacher, self.weights)
        logger.info("The assignments are those of the teacher %s.", self.weights)
        return teacher.eval().requires_grad_(False)


@META_ARCH_REGISTRY.register()
class DistilledDETR(DETR):
    """DETR whose main set is trained with the assignments of a frozen teacher; the matcher is a `TeacherMatcher`.

    `teacher` is a file of weights of the same architecture, such as the weights.pth of a run of the parent's config. It
    is read when training starts: evaluation needs none. Weights have the parent's names, so either config loads them.

    Our reading of the paper: query i of the student is query i of the teacher, as learned queries are the same for
    every image, so that the two are of one architecture. The teacher sees the very images of the step, augmented and
    padded, without dropout, so that an image always has the same assignment. DETR matches the predictions of each
    decoder layer separately, and so does this: layer l of the student gets the assignment of layer l of the teacher.
    """

    @configurable
    def __init__(self, *, teacher: str = "", **parts: Any) -> None:
        super().__init__(**parts)
        if self.proposals is not None:
            raise ConfigError(
                "model.proposals makes the queries of each image, which are not those of a teacher: distil a detector "
                "with learned queries."
            )
        if not isinstance(getattr(self.criterion, "matcher", None), TeacherMatcher):
            raise ConfigError(
                "model.criterion.matcher would ignore the teacher: make it a TeacherMatcher, which takes the same "
                "arguments as HungarianMatcher."
            )
        self.teacher = Teacher(teacher)

    def train(self, mode: bool = True) -> "DistilledDETR":
        """Set the mode as `nn.Module` does; for training, read the teacher, so that a wrong file is found before the
        first step.
        """
        if mode:
            self.teacher.read(self)
        super().train(mode)
        return self

    def predict_in_training(self, images: Sequence[Tensor], targets: Targets) -> dict[str, Predictions]:
        """Return all prediction sets by name, of which `main` knows the teacher's."""
        sets = super().predict_in_training(images, targets)
        return {**sets, MAIN: TaughtPredictions.of(sets[MAIN], self.teacher.predict(self, images))}
