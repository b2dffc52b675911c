"""Each file of docs/examples builds a detector that trains its new part and detects."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances

from align_detr.errors import ConfigError
from align_detr.lazy_config import load_config
from support.paths import PROJECT

FILES = sorted((PROJECT / "docs" / "examples").glob("*.py"))


def load(path: Path) -> ModuleType:
    """Import an example under its file's name."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def image(number: int) -> dict:
    """Return a random image with two objects."""
    truth = Instances((96, 128))
    truth.gt_boxes = Boxes(torch.tensor([[10.0, 10.0, 40.0, 50.0], [60.0, 20.0, 100.0, 80.0]]))
    truth.gt_classes = torch.tensor([number, 3])
    pixels = torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(number)) * 255
    return {"image": pixels, "height": 96, "width": 128, "instances": truth}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_trains_and_detects(path: Path) -> None:
    torch.manual_seed(0)
    module = load(path)
    model = instantiate(module.model)
    new = [part for part in model.modules() if type(part).__module__ == path.stem]
    assert new, f"no part of the detector comes from {path.name}"
    losses = model([image(0), image(1)])
    assert "loss_class" in losses and all(torch.isfinite(loss) for loss in losses.values())
    assert "loss_head" in losses or path.stem != "subclass"
    sum(losses.values()).backward()
    weights = [weight for part in new for weight in part.parameters()]
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in weights)
    assert not weights or any(weight.grad.abs().max() > 0 for weight in weights)
    found = model.eval()([image(2)])[0]["instances"]
    assert len(found) > 0 and found.scores.isfinite().all()


def test_the_loss_has_its_formula() -> None:
    """s = 0.5, u = 0.8, w = 0.5."""
    loss = load(PROJECT / "docs/examples/new_loss.py").SoftIoULoss()
    assert loss.positive(0.5, 0.8, 0.5) == pytest.approx((0.4, 0.1)) and loss.negative(0.5) == 0.25


def test_the_config_of_the_page_finds_a_module_in_pythonpath_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error beside it says so; with the folder of new_loss.py among Python's the loss is that of the file."""
    page = (PROJECT / "docs/extending.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (block,) = (x for x in blocks if "SoftIoULoss" in x)
    config = tmp_path / "my_config.py"
    config.write_text(block)
    monkeypatch.delitem(sys.modules, "new_loss", raising=False)
    with pytest.raises(ConfigError, match="No module named 'new_loss'.*PYTHONPATH=. for the current one"):
        load_config(str(config))
    monkeypatch.syspath_prepend(PROJECT / "docs/examples")
    (loss,) = [x for x in load_config(str(config)).model.criterion.losses if "SoftIoU" in str(x["_target_"])]
    assert loss.weight == 1.0


def test_every_example_is_on_the_page() -> None:
    page = (PROJECT / "docs" / "extending.md").read_text()
    assert all(f"\n[{path.name}](examples/{path.name})\n" in page for path in FILES)
