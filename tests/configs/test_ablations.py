"""The commands of docs/ablations.md, against the tables of the Align-DETR paper, written here by hand.

What the paper leaves open, such as alpha 0.75 of VFL, is from the paper of the loss, or from docs/ablations.md.
"""

import re
import shlex
from typing import Any, NamedTuple

import pytest
from detectron2.config import instantiate
from omegaconf import DictConfig, OmegaConf

from align_detr.cli import train
from align_detr.lazy_config import load_config
from support.paths import PROJECT

ONCE: dict[str, Any] = {}
TWICE = {"main": [2, 2, 2, 2, 2, 1], "enc": 2}
THRICE = {"main": [3, 3, 3, 3, 3, 1], "enc": 3}
FOUR_TIMES = {"main": [4, 4, 4, 4, 4, 1], "enc": 4}
HYBRID = {"o2m": 6}


class Row(NamedTuple):
    table: str
    name: str
    ap: float
    loss: str
    numbers: tuple[float | None, ...]  # weight, alpha and gamma of the class loss
    copies: dict[str, Any] = ONCE
    weighting: tuple[float, float] | None = None  # alpha and tau
    branch: float | None = None  # weight of the loss of an IoU branch
    fused: float | None = None  # weight of its score


PAPER = [
    Row("4", "focal loss", 49.0, "SigmoidFocalLoss", (1, 0.25, 2)),
    Row("4", "IoU branch, not fused", 49.0, "SigmoidFocalLoss", (1, 0.25, 2), branch=1),
    Row("4", "IoU branch, fused with weight 0.3", 49.2, "SigmoidFocalLoss", (1, 0.25, 2), branch=1, fused=0.3),
    Row("4", "QFL, gamma 2", 47.6, "QualityFocalLoss", (1, None, 2)),
    Row("4", "QFL, gamma 1", 48.6, "QualityFocalLoss", (1, None, 1)),
    Row("4", "VFL", 48.7, "VariFocalLoss", (1, 0.75, 2)),
    Row("4", "IA-BCE", 50.0, "IABCELoss", (1, 0.25, 2)),
    Row("5", "- | -", 49.0, "SigmoidFocalLoss", (1, 0.25, 2)),
    Row("5", "yes | -", 50.0, "IABCELoss", (1, 0.25, 2)),
    Row("5", "- | yes", 49.1, "SigmoidFocalLoss", (1, 0.25, 2), THRICE, (0.25, 1.5)),
    Row("5", "yes | yes", 50.2, "IABCELoss", (1, 0.25, 2), THRICE, (0.25, 1.5)),
    Row("6", "alpha 0", 50.0, "IABCELoss", (1, 0, 2), THRICE, (0, 1.5)),
    Row("6", "alpha 0.25", 50.2, "IABCELoss", (1, 0.25, 2), THRICE, (0.25, 1.5)),
    Row("6", "alpha 0.5", 49.2, "IABCELoss", (1, 0.5, 2), THRICE, (0.5, 1.5)),
    Row("6", "alpha 0.75", 47.6, "IABCELoss", (1, 0.75, 2), THRICE, (0.75, 1.5)),
    Row("6", "k 1", 50.0, "IABCELoss", (1, 0.25, 2)),
    Row("6", "k 2", 50.1, "IABCELoss", (1, 0.25, 2), TWICE, (0.25, 1.5)),
    Row("6", "k 3", 50.2, "IABCELoss", (1, 0.25, 2), THRICE, (0.25, 1.5)),
    Row("6", "k 4", 50.2, "IABCELoss", (1, 0.25, 2), FOUR_TIMES, (0.25, 1.5)),
    Row("6", "tau 1.5", 50.2, "IABCELoss", (1, 0.25, 2), THRICE, (0.25, 1.5)),
    Row("6", "tau 3", 50.1, "IABCELoss", (1, 0.25, 2), THRICE, (0.25, 3)),
    Row("6", "tau 6", 50.0, "IABCELoss", (1, 0.25, 2), THRICE, (0.25, 6)),
    Row("6", "tau 9", 49.7, "IABCELoss", (1, 0.25, 2), THRICE, (0.25, 9)),
    Row("7", "H-Deformable-DETR", 48.7, "SigmoidFocalLoss", (2, 0.25, 2), HYBRID),
    Row("7", "with IA-BCE", 49.3, "IABCELoss", (2, 0.25, 2), HYBRID),
    Row("8", "1 | -", 50.0, "IABCELoss", (1, 0.25, 2)),
    Row("8", "2 | -", 49.6, "IABCELoss", (1, 0.25, 2), TWICE),
    Row("8", "2 | yes", 50.1, "IABCELoss", (1, 0.25, 2), TWICE, (0.25, 1.5)),
    Row("8", "3 | -", 49.7, "IABCELoss", (1, 0.25, 2), THRICE),
    Row("8", "3 | yes", 50.2, "IABCELoss", (1, 0.25, 2), THRICE, (0.25, 1.5)),
    Row("B", "(1 - s)^2 | 0", 49.0, "SigmoidFocalLoss", (1, 0.25, 2)),
    Row("B", "1 | 0", 47.5, "UnitPositiveLoss", (1, None, 2)),
    Row("B", "t | 0", 48.0, "QualityPositiveLoss", (1, 0.25, 2)),
    Row("B", "(t - s)^2 | (t - s)^2", 49.6, "EqualGapLoss", (1, 0.25, 2)),
    Row("B", "(t - s)^2 | (1 - t) s^2", 49.8, "GapPositiveLoss", (1, 0.25, 2)),
    Row("B", "t | 1 - t", 50.0, "IABCELoss", (1, 0.25, 2)),
]


def read_doc() -> list[tuple[str, str, str, str]]:
    """Table, row, command and AP, as the page has them."""
    rows = []
    for part in re.split(r"^## Table ", (PROJECT / "docs" / "ablations.md").read_text(), flags=re.M)[1:]:
        for line in part.splitlines():
            if "`train " in line:
                *name, command, ap = (cell.strip() or "-" for cell in line.strip("|").split("|"))
                command = command.removeprefix("`train ").removesuffix("`")
                rows.append((part.split(":")[0], " | ".join(name), command, ap))
    return rows


DOC = read_doc()
COMMANDS = sorted({command for _, _, command, _ in DOC})


def load(command: str) -> DictConfig:
    args = train.build_parser().parse_intermixed_args(["--config-file", *shlex.split(command)])
    return load_config(args.config_file, args.overrides)


def untouched(cfg: DictConfig) -> dict[str, Any]:
    """What the paper's tables leave as it is."""
    nodes = {key: OmegaConf.to_container(cfg[key]) for key in ("optimizer", "lr_multiplier", "dataloader", "train")}
    nodes["train"].pop("output_dir")
    model = OmegaConf.to_container(cfg.model)
    model["criterion"].pop("weighting", None)
    model["criterion"]["matcher"].pop("copies", None)
    del model["criterion"]["losses"][0], model["criterion"]["losses"][2:], model["head"]["_target_"]
    model["postprocess"] = model["postprocess"].get("postprocess", model["postprocess"])
    return {**nodes, "model": model}


def test_every_row_of_the_papers_tables() -> None:
    assert len(PAPER) == 7 + 4 + 12 + 2 + 5 + 6
    assert [(table, name, ap) for table, name, _, ap in DOC] == [(row.table, row.name, f"{row.ap}") for row in PAPER]


@pytest.mark.parametrize("row", PAPER, ids=lambda row: f"{row.table}: {row.name}")
def test_row(row: Row) -> None:
    (command,) = (command for table, name, command, _ in DOC if (table, name) == (row.table, row.name))
    cfg = load(command)
    criterion, postprocess = instantiate(cfg.model.criterion), instantiate(cfg.model.postprocess)
    loss, weighting = criterion.losses[0], criterion.weighting
    assert type(loss).__name__ == row.loss
    assert tuple(getattr(loss, name, None) for name in ("weight", "alpha", "gamma")) == row.numbers
    hybrid = {"o2m": cfg.model.queries.copies} if "copies" in cfg.model.queries else {}
    assert {**criterion.matcher.limits.copies, **hybrid} == row.copies
    assert (None if weighting is None else (weighting.alpha, weighting.tau)) == row.weighting
    branch = [] if row.branch is None else [("IoUBranchLoss", row.branch)]
    others = [("L1Loss", 5), ("GIoULoss", 2), *branch]
    assert [(type(loss).__name__, loss.weight) for loss in criterion.losses[1:]] == others
    assert type(instantiate(cfg.model.head)).__name__ == ("LayerwiseIoUHead" if branch else "LayerwiseHead")
    assert type(postprocess).__name__ == ("TopKPostprocess" if row.fused is None else "FusedPostprocess")
    assert getattr(postprocess, "weight", None) == row.fused
    parent = "h_deformable_detr/h_deformable_detr_r50_12ep.py" if row.table == "7" else "dino/dino_r50_4scale_12ep.py"
    assert untouched(cfg) == untouched(load_config(parent))


def test_different_commands_have_different_folders() -> None:
    """None of which has a character that a shell or hydra would read."""
    folders = [load(command).train.output_dir for command in COMMANDS]
    assert len(COMMANDS) > 20 and len(set(folders)) == len(COMMANDS)
    for folder in folders:
        assert re.fullmatch(r"\./output/(ablations/)?[\w.]+", folder)


@pytest.mark.parametrize("command", COMMANDS)
def test_shells_read_the_command_as_it_stands(command: str) -> None:
    """Brackets are quoted: zsh takes them for a pattern."""
    assert shlex.join(shlex.split(command)) == command
