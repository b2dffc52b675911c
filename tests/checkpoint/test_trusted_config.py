"""Configs inside of weights files: those of the model zoo pass, and nothing that could run other code does."""

from pathlib import Path

import pytest
from detectron2.config import LazyConfig, instantiate
from omegaconf import OmegaConf

from align_detr.checkpoint.trusted_config import check_parts, model_config
from align_detr.errors import ConfigError
from support.shrink import config, small_model

FAMILIES = [
    "quickstart/bccd_align_dino.py",
    "dino/dino_r50_4scale_12ep.py",
    "conditional_detr/conditional_detr_r50_50ep.py",
    "AnchorDETR/anchor_detr_r50_50ep.py",
    "SMCA/smca_r50_50ep.py",
    "TSP/tsp_fcos_r50_36ep.py",
    "TSP/tsp_rcnn_r50_36ep.py",
    "FasterRCNN/faster_rcnn_r50_fpn_36ep.py",
]
CALLS: list[str] = []


def marker(**arguments: object) -> None:
    """Harmless, and recorded: it stands for what a stranger's file would run."""
    CALLS.append("run")


def saved(name: str, tmp_path: Path) -> str:
    """Return a config as training saves it."""
    path = tmp_path / "config.yaml"
    LazyConfig.save(config(name), str(path))
    return path.read_text(encoding="utf-8")


def test_configs_of_every_family_pass(tmp_path: Path) -> None:
    """With their model, the transforms of their test data and their settings, and without the rest."""
    for name in FAMILIES:
        cfg = model_config(saved(name, tmp_path), "weights.pth")
        assert set(cfg) == {"model", "dataloader", "train"} and set(cfg.dataloader) == {"test", "evaluator"}
        assert cfg.train.output_dir == config(name).train.output_dir
        assert cfg.dataloader.test.mapper.image_format == "RGB" and cfg.dataloader.evaluator.dataset_name


def test_the_same_model_is_built_from_it(tmp_path: Path) -> None:
    """Relations between its numbers included."""
    path = tmp_path / "config.yaml"
    LazyConfig.save(OmegaConf.create({"model": small_model("dino/dino_r50_4scale_12ep.py")}), str(path))
    model = instantiate(model_config(path.read_text(encoding="utf-8"), "weights.pth").model)
    expected = instantiate(small_model("dino/dino_r50_4scale_12ep.py")).state_dict()
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in expected.items()}


def test_a_backbone_of_timm_downloads_nothing() -> None:
    """The weights are in the file, whatever its config says."""
    text = "model: {_target_: align_detr.modeling.DETR, backbone: {_target_: align_detr.modeling.TimmBackbone, %s}}"
    read = model_config(text % "name: resnet10t, pretrained: true", "weights.pth")
    assert read.model.backbone == {
        "_target_": "align_detr.modeling.TimmBackbone",
        "name": "resnet10t",
        "pretrained": False,
    }


HEADER = "model: {_target_: align_detr.modeling.DETR, backbone: %s}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER % f"{{_target_: {__name__}.marker}}", r"names [\w.]*marker, which is not a part"),
        (HEADER % "{_target_: os.system, command: 'true'}", "names os.system, which is not a part"),
        (HEADER % "{_target_: align_detr.modeling.os.system}", "names align_detr.modeling.os.system"),
        (HEADER % "{_target_: align_detr.modeling.warnings}", "names align_detr.modeling.warnings"),
        (HEADER % "{_target_: [os.system]}", "names .*os.system"),
        (HEADER % "{_target_: torch.nn.Module}", "names torch.nn.Module"),
        (HEADER % "{depth: '${oc.env:HOME}'}", "has the value '.*oc.env.*', which would be computed"),
        (HEADER % "{depth: '${..neck.${oc.env:HOME}}'}", "has the value .*, which would be computed"),
        (HEADER % f"!!pairs [x: {{_target_: {__name__}.marker}}]", "has a value of the type tuple, which is not plain"),
        (HEADER % "!!set {a}", "has a value of the type set"),
        (HEADER % "2001-01-01", "has a value of the type date"),
        (HEADER % "!!binary aGVsbG8=", "has a value of the type bytes"),
        (HEADER % "!!timestamp soon", "cannot be read"),
        (HEADER % "{null: 1}", "has the key None, which is not a text"),
        (HEADER % "{3: 1}", "has the key 3, which is not a text"),
        (HEADER % "[" * 2000, "cannot be read"),
        (HEADER % ("[" * 60 + "]" * 60), "has more than 50 levels"),
        (HEADER % f"[{'1, ' * 60_000}]", "has more than 50 levels or 50,000 values"),
        ("model: &a {backbone: *a}", "cannot be read .it has aliases"),
        (f"# {'x' * 1_000_000}", "has 1,000,002 letters"),
        (
            "model: {a: 1}\nd: $\ndataloader: {test: {mapper: '${d}{oc.env:HOME}'}}",
            "has the value '.{oc.env:HOME}', which would be computed",
        ),
        (HEADER % f"!!python/object/apply:{__name__}.marker []", "cannot be read"),
        ("model: [1]", "has no model"),
        ("model: {", "cannot be read"),
        ("text", "has no model"),
    ],
)
def test_everything_else_is_refused_by_its_name_and_not_run(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"The config in strange.pth {message}") as error:
        model_config(text, "strange.pth")
    assert "\n" not in str(error.value) and "if you trust it, name the config yourself (" in str(error.value)
    assert CALLS == []
    marker()
    assert CALLS.pop() == "run"


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (
            {"_target_": "torch.nn.Linear", "a": 1},
            "does not fit torch.nn.Linear .got an unexpected|does not fit .*missing",
        ),
        ({"_target_": "torch.nn.Linear", "in_features": 1}, "does not fit torch.nn.Linear .missing .*out_features"),
        ({"_target_": "torch.nn.Identity", "a": "???"}, "cannot be read .Missing mandatory value"),
        ({"_target_": "torch.nn.Identity", "a": "${..b}"}, "cannot be read"),
        ({"_target_": "torch.nn.Identity", "a": "${node}"}, "cannot be read"),
        ({"_target_": "torch.nn.Identity", "a": {"_target_": "${..name}"}, "name": "os.mkdir"}, "names os.mkdir"),
        ({"_target_": "torch.nn.Identity", "a": marker}, "has a value of the type function"),
    ],
)
def test_values_are_checked_again_as_they_are_instantiated(node: dict[str, object], message: str) -> None:
    """With their interpolations resolved, and the arguments of each part."""
    tree = OmegaConf.create({"node": node}, flags={"allow_objects": True})
    with pytest.raises(ConfigError, match=f"The config in strange.pth ({message})"):
        check_parts(tree.node, "strange.pth")
