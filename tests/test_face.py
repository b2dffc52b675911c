"""The lists of public names: what configs import, what documents name, what a saved config says."""

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from omegaconf import OmegaConf

import align_detr.modeling
from align_detr import model_zoo
from support.paths import PROJECT

FACES = [
    "align_detr",
    "align_detr.layers",
    "align_detr.modeling",
    "align_detr.modeling.losses",
    "align_detr.modeling.meta_arch",
    "align_detr.modeling.queries",
    "align_detr.modeling.backbone",
    "align_detr.data",
    "align_detr.engine",
    "align_detr.evaluation",
    "align_detr.analysis",
    "align_detr.inference",
    "align_detr.projects.anchor_detr",
    "align_detr.projects.detr_segmentation",
    "align_detr.projects.faster_rcnn",
    "align_detr.projects.smca",
    "align_detr.projects.tsp",
]
# Modules under modeling/ whose classes are no parts of a config: values and machinery behind a part that is listed.
BEHIND = ("align_detr.modeling.matching.", "align_detr.modeling.queries.noise")
# Classes that only listed ones are made of.
INNER = {
    "ChannelsLastResNet",
    "Float32PixelStatistics",
    "FourStages",
    "SmallStem",
    "SplitProjectionAttention",
    "ConditionalSelfAttention",
    "ConditionalCrossAttention",
    "FirstConditionalCrossAttention",
    "ReleaseReader",
}
CONFIGS = sorted(
    path for folder in [PROJECT / "configs", *(PROJECT / "projects").glob("*/configs")] for path in folder.rglob("*.py")
)
DOCUMENTS = [PROJECT / "README.md", *(PROJECT / "docs").glob("*.md"), *(PROJECT / "projects").rglob("README.md")]


def imports(source: str) -> list[tuple[str, str]]:
    """(module, name) of every import of this package in Python source."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) and not node.level]
    return [(node.module, alias.name) for node in nodes for alias in node.names if node.module.startswith("align_detr")]


@pytest.mark.parametrize("module", FACES)
def test_a_face_lists_each_of_its_names_once(module: str) -> None:
    face = importlib.import_module(module)
    assert sorted(face.__all__) == sorted(set(face.__all__))
    for name in face.__all__:
        assert hasattr(face, name), name


def test_every_part_is_listed() -> None:
    """Every public class of a module under modeling/, but for those behind the matcher and the query sources."""
    listed = set(align_detr.modeling.__all__)
    for info in pkgutil.walk_packages(align_detr.modeling.__path__, "align_detr.modeling."):
        if info.name.startswith(BEHIND):
            continue
        module = importlib.import_module(info.name)
        for name, value in inspect.getmembers(module, inspect.isclass):
            if value.__module__ == info.name and issubclass(value, torch.nn.Module) and not name.startswith("_"):
                assert name in listed | INNER, f"{info.name}.{name}"


def test_a_former_name_works_with_a_warning() -> None:
    with pytest.warns(FutureWarning, match="is now align_detr.modeling.DetectorBase"):
        assert align_detr.modeling.Detector is align_detr.modeling.DetectorBase
    with pytest.raises(AttributeError, match="has no attribute 'Detektor'"):
        align_detr.modeling.Detektor  # noqa: B018


def test_configs_import_from_faces_alone() -> None:
    assert len(CONFIGS) > 100
    for path in CONFIGS:
        for module, name in imports(path.read_text(encoding="utf-8")):
            if module != "align_detr":
                assert module in FACES, f"{path} imports {name} from {module}"
                assert name in importlib.import_module(module).__all__, f"{path}: {name} of {module}"


def test_documents_import_what_is_listed() -> None:
    """In their Python blocks."""
    found = []
    for path in DOCUMENTS:
        for block in re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL):
            for module, name in imports(block):
                face = importlib.import_module(module)
                found.append(name)
                assert hasattr(face, name), f"{path}: {module}.{name}"
                if module.startswith("align_detr.modeling"):
                    assert name in align_detr.modeling.__all__, f"{path}: {module}.{name}"
    assert found


def test_a_saved_config_names_the_face(tmp_path: Path) -> None:
    """`align_detr.modeling.FocalCost`, not the file that holds it, which may move."""
    names = [name for name in align_detr.modeling.__all__ if name[0].isupper()]
    assert len(names) > 80
    saved = tmp_path / "config.yaml"
    LazyConfig.save(OmegaConf.create({name: L(getattr(align_detr.modeling, name))() for name in names}), str(saved))
    loaded = OmegaConf.load(saved)
    layers = {"SinePositionEncoding", "LearnedPositionEncoding"}  # which have a face of their own
    expected = {name: f"align_detr.{'layers' if name in layers else 'modeling'}.{name}" for name in names}
    assert {name: loaded[name]["_target_"] for name in names} == expected


def test_a_config_that_names_files_still_loads(tmp_path: Path) -> None:
    """One that was saved when parts were named by their files, where those are still there."""
    saved = tmp_path / "config.yaml"
    LazyConfig.save(model_zoo.get_config("detr/detr_r50_500ep.py"), str(saved))
    text = saved.read_text(encoding="utf-8")
    for name, file in {"SoftmaxCost": "matcher", "LearnedQueries": "queries", "DETR": "meta_arch"}.items():
        assert f"align_detr.modeling.{name}" in text
        text = re.sub(rf"align_detr\.modeling\.{name}\b", f"align_detr.modeling.{file}.{name}", text)
    saved.write_text(text, encoding="utf-8")
    model = instantiate(LazyConfig.load(str(saved)).model)
    assert type(model) is align_detr.modeling.DETR and type(model.queries) is align_detr.modeling.LearnedQueries
