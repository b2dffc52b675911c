"""Matching distillation: a student with the assignments of a frozen teacher."""

import copy
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import Tensor

from align_detr.errors import ConfigError, NonFinitePrediction
from align_detr.modeling import HungarianMatcher, L1Cost, L1Loss, SetCriterion
from align_detr.projects.tsp import DistilledDETR, TaughtPredictions, TeacherMatcher
from align_detr.structures import MAIN, Predictions, Targets
from support.inputs import image_input
from support.shrink import small_model
from support.subject import randomise

PARENT, CONFIG = "quickstart/digits_detr.py", "TSP/detr_digits_distilled.py"


def node_of(name: str = CONFIG, **sizes: int) -> DictConfig:
    """Return a small model without batch statistics, so that training and evaluation predict the same."""
    node = small_model(name, **sizes)
    node.backbone.norm = "FrozenBN"
    return node


def write_teacher(folder: Path, name: str = "teacher.pth", seed: int = 1, **sizes: int) -> str:
    """Write the random weights of a small parent to a file, and return it."""
    torch.manual_seed(seed)
    model = instantiate(node_of(PARENT, **sizes))
    randomise(model)
    torch.save(model.state_dict(), folder / name)
    return str(folder / name)


def build(teacher: str, **changes: object) -> DistilledDETR:
    node = node_of()
    node.teacher = teacher
    node.update(changes)
    return instantiate(node)


def batch(*counts: int) -> list[dict]:
    """Return noise images of several sizes with so many objects."""
    torch.manual_seed(0)
    return [image_input(height, 70, count) for height, count in zip((64, 48, 96), counts, strict=False)]


@pytest.fixture
def teacher(tmp_path: Path) -> str:
    return write_teacher(tmp_path)


@pytest.mark.parametrize("counts", [(3, 1), (0, 4), (0, 0)])
def test_a_teacher_of_the_same_weights_changes_nothing(teacher: str, counts: tuple[int, ...]) -> None:
    """Every loss and gradient is the parent's to the last bit."""
    plain, student = instantiate(node_of(PARENT)), build(teacher)
    losses = []
    for model in (plain, student):
        model.load_state_dict(torch.load(teacher, weights_only=True))
        losses.append(model.train()(batch(*counts)))
        torch.stack(list(losses[-1].values())).sum().backward()
    assert losses[0].keys() == losses[1].keys()
    assert all(torch.equal(value, losses[1][name]) for name, value in losses[0].items())
    gradients = dict(student.named_parameters())
    assert all(torch.equal(p.grad, gradients[name].grad) for name, p in plain.named_parameters() if p.requires_grad)


@pytest.mark.parametrize("name", ["conditional_detr/conditional_detr_r50_50ep.py", "dn_detr/dn_detr_r50_50ep.py"])
def test_any_detr_of_learned_queries_can_be_a_student(tmp_path: Path, name: str) -> None:
    """Of other queries, decoders and losses; denoising queries keep their objects."""
    node = small_model(name, dropout=0.0)
    torch.manual_seed(1)
    plain = instantiate(node)
    randomise(plain)
    torch.save(plain.state_dict(), tmp_path / "teacher.pth")
    node.update({"_target_": DistilledDETR, "teacher": str(tmp_path / "teacher.pth")})
    node.criterion.matcher["_target_"] = TeacherMatcher
    student = instantiate(node)
    student.load_state_dict(plain.state_dict())
    losses = []
    for model in (plain, student):
        images = batch(3, 0)
        losses.append(model.train()(images))
    assert losses[0].keys() == losses[1].keys()
    assert all(torch.equal(value, losses[1][name]) for name, value in losses[0].items())


def test_another_teacher_gives_other_losses(tmp_path: Path) -> None:
    """Its assignments cost more than the cheapest ones of the student's predictions, which are the parent's."""
    plain, student = instantiate(node_of(PARENT)), build(write_teacher(tmp_path))
    weights = torch.load(write_teacher(tmp_path, "student.pth", seed=2), weights_only=True)
    losses = []
    for model in (plain, student):
        model.load_state_dict(weights)
        losses.append(model.train()(batch(3, 4)))
    assert losses[0].keys() == losses[1].keys() and losses[0]["loss_bbox"] < losses[1]["loss_bbox"]


def boxes_at(*rows: list[float]) -> Tensor:
    """Return boxes (R, 1, Q, 4) of side 0.2 at these places of a line."""
    x = torch.tensor(rows)[:, None]
    return torch.stack([x, torch.full_like(x, 0.5), *(torch.full_like(x, 0.2),) * 2], dim=-1)


def on_a_line(*rows: list[float]) -> Predictions:
    boxes = boxes_at(*rows)
    return Predictions(logits=torch.zeros(*boxes.shape[:3], 2), boxes=boxes)


def two_objects() -> Targets:
    """Return objects at 0.2 and 0.8 of the line."""
    return Targets(labels=torch.zeros(1, 2, dtype=torch.int64), boxes=boxes_at([0.2, 0.8])[0], counts=[2])


def test_each_layer_has_the_pairs_of_the_teachers_layer() -> None:
    """Query 0 of the student is at the first object in both layers. The teacher has it at the second one in layer 0,
    so that there each of the student's boxes is 0.6 away from its object; in layer 1 the two agree.
    """
    student, teacher = on_a_line([0.2, 0.8], [0.2, 0.8]), on_a_line([0.8, 0.2], [0.2, 0.8])
    student.boxes.requires_grad_()
    criterion = SetCriterion(matcher=TeacherMatcher(costs=[L1Cost(weight=1.0)]), losses=[L1Loss(weight=1.0)])
    taught = {MAIN: TaughtPredictions.of(student, teacher)}
    match = criterion.matcher(taught, two_objects())[MAIN]
    pairs = sorted(zip(match.row.tolist(), match.query.tolist(), match.target.tolist(), strict=True))
    assert pairs == [(0, 0, 1), (0, 1, 0), (1, 0, 0), (1, 1, 1)]
    losses = criterion(taught, two_objects())
    assert losses["loss_bbox_0"].item() == pytest.approx(0.6) and losses["loss_bbox"].item() == pytest.approx(0)
    losses["loss_bbox_0"].backward()
    # 0.2 moves up to 0.8 and 0.8 down to 0.2; two boxes
    assert student.boxes.grad[0, 0, :, 0].tolist() == pytest.approx([-0.5, 0.5])
    own = HungarianMatcher(costs=[L1Cost(weight=1.0)])({MAIN: student}, two_objects())[MAIN]
    assert own.query.tolist() == own.target.tolist()


@pytest.mark.parametrize(("who", "named"), [(0, "main of the student"), (1, "main")])
def test_what_is_not_finite_is_found_in_both(who: int, named: str) -> None:
    both = [on_a_line([0.2, 0.8]), on_a_line([0.2, 0.8])]
    both[who].logits[0, 0, 1, 0] = torch.nan
    matcher = TeacherMatcher(costs=[L1Cost(weight=1.0)])
    with pytest.raises(NonFinitePrediction, match=f"set '{named}', layer 0, image number 0 of the batch, query 1"):
        matcher({MAIN: TaughtPredictions.of(*both)}, two_objects())


def test_an_image_of_nan_is_left_out(teacher: str) -> None:
    """The losses of the others stay."""
    student = build(teacher)
    student.criterion.matcher.on_nonfinite = "skip"
    images = batch(3, 2)
    images[1]["image"] = images[1]["image"].float().fill_(torch.nan)
    losses = student.train()(images)
    assert all(torch.isfinite(value) for value in losses.values()) and losses["loss_bbox"] > 0


def test_only_the_student_is_trained(teacher: str) -> None:
    """The teacher is frozen, in evaluation mode, draws no random number, and is no part of the student."""
    student, plain = build(teacher), instantiate(node_of(PARENT))
    student.train()
    frozen = student.teacher.read(student)
    before = copy.deepcopy(frozen.state_dict())
    images = batch(3, 1)
    state = torch.get_rng_state()
    losses = student(images)
    assert torch.equal(torch.get_rng_state(), state)
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None for p in student.parameters() if p.requires_grad)
    assert not any(p.requires_grad or p.grad is not None for p in frozen.parameters())
    assert not any(module.training for module in frozen.modules())
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())
    assert student.state_dict().keys() == plain.state_dict().keys()
    assert {id(p) for p in frozen.parameters()}.isdisjoint(id(p) for p in student.parameters())
    assert len(list(student.modules())) == len(list(plain.modules()))


def test_copies_share_the_teacher(teacher: str) -> None:
    """Those of averaged weights, made before it is read, compute the validation loss with it."""
    student = build(teacher)
    averaged = copy.deepcopy(student)
    frozen = student.train().teacher.read(student)
    assert averaged.teacher.read(averaged) is frozen
    assert frozen.device == student.device


def test_evaluation_needs_no_teacher(tmp_path: Path) -> None:
    student, plain = build(str(tmp_path / "gone.pth")).eval(), instantiate(node_of(PARENT)).eval()
    plain.load_state_dict(student.state_dict())
    found, expected = (model(batch(1))[0]["instances"] for model in (student, plain))
    assert len(found) > 0 and torch.equal(found.scores, expected.scores)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (dict(num_layers=1), r"The teacher does not fit the student \(.*teacher\.pth lacks .*decoder.*\): set"),
        (dict(num_layers=3), r"The teacher does not fit the student \(.*has \d+ tensors that the model has not"),
        (dict(num_queries=5), r"The teacher does not fit the student \(.*in another shape than the model's"),
        (dict(num_classes=2), r"The teacher does not fit the student \(.*has 2 classes instead of 3.*classes\.$"),
    ],
)
def test_a_teacher_of_another_architecture(tmp_path: Path, sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(write_teacher(tmp_path, **sizes)).train()


def test_a_teacher_that_is_missing(tmp_path: Path, teacher: str) -> None:
    with pytest.raises(ConfigError, match=r"^model\.teacher is empty, but .*: set it to a file of trained weights"):
        build("").train()
    with pytest.raises(ConfigError, match=r"There is no checkpoint .*gone\.pth"):
        build(str(tmp_path / "gone.pth")).train()
    state = torch.load(teacher, weights_only=True)
    next(iter(state.values())).fill_(torch.nan)
    torch.save(state, teacher)
    with pytest.raises(ConfigError, match=r"teacher\.pth gives .* NaN"):
        build(teacher).train()


def test_parts_that_do_not_fit(teacher: str) -> None:
    node = node_of()
    node.criterion.matcher["_target_"] = HungarianMatcher
    with pytest.raises(ConfigError, match=r"model\.criterion\.matcher would ignore the teacher: make it a Teacher"):
        instantiate(node)
    with pytest.raises(ConfigError, match=r"model\.proposals makes the queries of each image"):
        build(teacher, proposals=L(torch.nn.Identity)())


def test_queries_of_training_alone_have_no_counterpart() -> None:
    with pytest.raises(ConfigError, match="predicts 2 rows of 2 queries in training, but its teacher 1 rows of 2"):
        TaughtPredictions.of(on_a_line([0.2, 0.8], [0.2, 0.8]), on_a_line([0.2, 0.8]))
