"""The commands of docs/ablations.md: each loads, and says what its row says."""

import re
import shlex

import pytest
from detectron2.config import instantiate
from paths import PROJECT

from align_detr.cli import train
from align_detr.engine.run_config import load_config
from align_detr.modeling.losses import IABCELoss

ROWS = re.findall(r"^\|(.*)\| `train ([^`]+)` \| ([0-9.]+) \|$", (PROJECT / "docs" / "ablations.md").read_text(), re.M)


@pytest.mark.parametrize(("row", "command", "ap"), ROWS, ids=[command for _, command, _ in ROWS])
def test_command(row: str, command: str, ap: str) -> None:
    args = train.build_parser().parse_intermixed_args(["--config-file", *shlex.split(command)])
    cfg = load_config(args.config_file, args.overrides)
    criterion = instantiate(cfg.model.criterion)
    assert criterion.losses[0].weight in (1.0, 2.0)
    for name in ("alpha", "k", "tau"):
        value = re.fullmatch(rf" {name} ([0-9.]+) ", row)
        if value and name == "alpha":
            assert criterion.losses[0].alpha == criterion.weighting.alpha == float(value[1])
        if value and name == "k":
            k = int(value[1])
            copies = criterion.matcher.copies or {"main": [1] * 6, "enc": 1}
            assert copies == {"main": [k] * 5 + [1], "enc": k}
        if value and name == "tau":
            assert criterion.weighting.tau == float(value[1])


def test_every_row_of_the_papers_tables() -> None:
    """7 + 4 + 12 + 2 + 5 + 6 rows, and prime-sample weighting is off where the row says so."""
    assert len(ROWS) == 36
    off = [command for _, command, _ in ROWS if "weighting=null" in command]
    assert len(off) == 2
    for command in off:
        name, *overrides = shlex.split(command)
        criterion = instantiate(load_config(name, overrides).model.criterion)
        assert criterion.weighting is None and isinstance(criterion.losses[0], IABCELoss)
