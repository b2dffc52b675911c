"""Checkpoint files: formats, refusals, reports."""

import argparse
import os
import pickle
import random
from collections import OrderedDict
from importlib import import_module
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from align_detr import model_zoo
from align_detr.checkpoint.checkpointer import Checkpointer
from align_detr.checkpoint.contents import read_weights, weights_in
from align_detr.checkpoint.conversion import find_release
from align_detr.checkpoint.loading import load_weights
from align_detr.checkpoint.report import LoadReport
from align_detr.checkpoint.restricted import read_pickle
from align_detr.errors import ConfigError, EnvironmentProblem
from align_detr.projects import PROJECTS
from support.golden import load_manifest
from support.paths import GOLDEN


class RunsCode:
    """A malicious object: unpickling it calls a function of the sender's choice."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def arrays():
    return {"weight": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.array([7, 8], np.float32)}


def assert_loaded(model):
    assert model.weight.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert model.bias.tolist() == [7, 8]


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_model_zoo_pickle(tmp_path, protocol):
    content = {"model": arrays(), "__author__": "somebody", "epoch": np.float64(3)}
    (tmp_path / "zoo.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    model = nn.Linear(3, 2)
    extra = Checkpointer(model).load(str(tmp_path / "zoo.pkl"))
    assert_loaded(model)
    assert extra["__author__"] == "somebody"


@pytest.mark.parametrize("nested", [True, False])
def test_blobs_of_caffe2_are_matched_by_name(tmp_path, nested):
    blobs = {"conv1_w": np.ones((2, 3, 1, 1), np.float32), "conv1_w_momentum": np.zeros((2, 3, 1, 1), np.float32)}
    (tmp_path / "caffe2.pkl").write_bytes(pickle.dumps({"blobs": blobs} if nested else blobs))
    model = nn.ModuleDict({"stem": nn.ModuleDict({"conv1": nn.Conv2d(3, 2, 1, bias=False)})})
    Checkpointer(model).load(str(tmp_path / "caffe2.pkl"))
    assert model["stem"]["conv1"].weight.flatten().tolist() == [1.0] * 6


def test_pickle_that_runs_code_is_refused_and_not_run(tmp_path):
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"model": arrays(), "x": RunsCode(tmp_path / "made")}))
    with pytest.raises(ConfigError, match=r"bad\.pkl holds a posix\.mkdir|bad\.pkl holds a nt\.mkdir"):
        Checkpointer(nn.Linear(3, 2)).load(str(tmp_path / "bad.pkl"))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("value", [argparse.Namespace(a=1), Path("x"), torch.zeros(2)])
def test_other_classes_are_refused_by_name(tmp_path, value):
    (tmp_path / "other.pkl").write_bytes(pickle.dumps([value]))
    with pytest.raises(ConfigError, match="which is not a weight"):
        read_pickle(str(tmp_path / "other.pkl"))


def test_ordered_dicts_strings_and_scalars_are_read(tmp_path):
    content = OrderedDict(a=[np.int64(3), "text", b"bytes", None, 1.5], b=np.zeros((0, 2), np.float16))
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(content))
    read = read_pickle(str(tmp_path / "plain.pkl"))
    assert read["a"] == content["a"] and read["b"].shape == (0, 2)


def test_npz(tmp_path):
    np.savez(tmp_path / "weights.npz", **arrays())
    model = nn.Linear(3, 2)
    Checkpointer(model).load(str(tmp_path / "weights.npz"))
    assert_loaded(model)


def test_npz_with_objects_is_refused(tmp_path):
    np.savez(tmp_path / "objects.npz", weight=np.array([RunsCode(tmp_path / "made")], dtype=object))
    with pytest.raises(ConfigError, match="objects.npz"):
        Checkpointer(nn.Linear(3, 2)).load(str(tmp_path / "objects.npz"))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("wrapped", [True, False])
def test_official_file_with_namespace_and_bare_state_dict(tmp_path, wrapped):
    state = {key: torch.from_numpy(value) for key, value in arrays().items()}
    torch.save({"model": state, "args": argparse.Namespace(lr=1e-4)} if wrapped else state, tmp_path / "detr.pth")
    model = nn.Linear(3, 2)
    Checkpointer(model).load(str(tmp_path / "detr.pth"))
    assert_loaded(model)


def test_torch_file_with_another_class_is_refused_by_name(tmp_path):
    torch.save({"model": {}, "x": RunsCode(tmp_path / "made")}, tmp_path / "bad.pth")
    with pytest.raises(ConfigError, match="mkdir, which is not a weight"):
        Checkpointer(nn.Linear(3, 2)).load(str(tmp_path / "bad.pth"))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "name", ["damaged.pth", "empty.pth", "damaged.npz", "damaged.pkl", "weights.onnx", "absent.pth"]
)
def test_files_that_cannot_be_used_are_named_in_one_line(tmp_path, name):
    if not name.startswith("absent"):
        (tmp_path / name).write_bytes(b"" if name.startswith("empty") else b"not a checkpoint")
    with pytest.raises(ConfigError, match=name) as error:
        Checkpointer(nn.Linear(3, 2)).load(str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_remedy_of_a_missing_file_follows_from_where_its_path_came_from(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGN_DETR_DATA", str(tmp_path / "data"))
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "last_checkpoint").write_text("model_final.pth")
    checkpointer = Checkpointer(nn.Linear(3, 2), str(tmp_path / "output"))
    remedies = {
        checkpointer.last_checkpoint(): "remove the file last_checkpoint",
        str(tmp_path / "data" / "weights" / "a.npz"): "set ALIGN_DETR_DATA",
        str(tmp_path / "a.npz"): "correct train.init_checkpoint.",
    }
    for path, remedy in remedies.items():
        with pytest.raises(ConfigError) as error:
            checkpointer.load(path)
        message = str(error.value)
        assert remedy in message
        assert ("last_checkpoint" in message) == (remedy == "remove the file last_checkpoint")
        assert ("ALIGN_DETR_DATA" in message) == (remedy == "set ALIGN_DETR_DATA")
        assert ("Detector('digits').train(DATA)" in message) == (remedy == "set ALIGN_DETR_DATA")


def test_failing_download_is_one_sentence(monkeypatch):
    checkpointer = Checkpointer(nn.Linear(3, 2))

    def fail(url):
        raise URLError("name not known")

    monkeypatch.setattr(checkpointer.path_manager, "get_local_path", fail)
    with pytest.raises(EnvironmentProblem, match="https://example.org/x.pkl cannot be downloaded.*name not known"):
        checkpointer.load("https://example.org/x.pkl")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("list.pth", [torch.zeros(2)], r"holds a list, not a dictionary of weights: save a model's"),
        ("numbers.pth", {0: torch.zeros(2)}, "has the key 0, which is not a parameter's name"),
        ("model.pth", {"model": {1: torch.zeros(2)}}, "has the key 1, which is not a parameter's name"),
        ("blobs.pkl", {"blobs": [np.zeros(2)]}, "holds a list, not a dictionary of weights"),
    ],
)
def test_content_that_is_no_state_dict_is_named(tmp_path, name, content, expected):
    if name.endswith(".pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(content))
    else:
        torch.save(content, tmp_path / name)
    with pytest.raises(ConfigError, match=f"{name} {expected}"):
        Checkpointer(nn.Linear(3, 2)).load(str(tmp_path / name))


def test_values_that_are_no_weights_are_named(tmp_path):
    torch.save({"model": {"weight": "text"}}, tmp_path / "text.pth")
    with pytest.raises(ConfigError, match="text.pth is not a dictionary of weights.*weight"):
        Checkpointer(nn.Linear(3, 2)).load(str(tmp_path / "text.pth"))


def test_nothing_fits(tmp_path):
    torch.save({"model": {"encoder.weight": torch.zeros(2, 3)}}, tmp_path / "foreign.pth")
    with pytest.raises(ConfigError, match="Nothing of the checkpoint .*foreign.pth fits.*'encoder.weight'"):
        Checkpointer(nn.Linear(3, 2)).load(str(tmp_path / "foreign.pth"))
    torch.save({"model": {"weight": torch.zeros(5, 3)}}, tmp_path / "shapes.pth")
    with pytest.raises(ConfigError, match="Nothing of the checkpoint .* fits"):
        Checkpointer(nn.Linear(3, 2)).load(str(tmp_path / "shapes.pth"))


def test_nothing_fits_a_frozen_norm_that_fills_in_its_own_statistics(tmp_path):
    torch.save({"model": {"features.weight": torch.zeros(2)}}, tmp_path / "foreign.pth")
    with pytest.raises(ConfigError, match="Nothing of the checkpoint .* fits"):
        Checkpointer(nn.Sequential(nn.Conv2d(3, 2, 1), FrozenBatchNorm2d(2))).load(str(tmp_path / "foreign.pth"))


def test_partial_fit_is_loaded_and_reported(tmp_path, caplog):
    """In one line, with 6 of the 8 numbers; the names are for log.txt, whose level is DEBUG."""
    torch.save({"weight": torch.ones(2, 3), "bias": torch.zeros(9), "other": torch.zeros(1)}, tmp_path / "partial.pth")
    model = nn.Linear(3, 2)
    checkpointer = Checkpointer(model)
    with caplog.at_level("DEBUG"):
        checkpointer.load(str(tmp_path / "partial.pth"))
    assert model.weight.tolist() == [[1, 1, 1], [1, 1, 1]]
    report = checkpointer.report
    assert report.new == ["bias"] and report.wrong_shapes == {"bias": ((9,), (2,))} and report.left_over == ["other"]
    line = "Loaded 1 of 2 tensors (75 % of the numbers); new: bias (1); left over: 1 tensors of the file."
    lines = {record.getMessage(): record.levelname for record in caplog.records}
    assert lines[line] == "INFO"
    details = [text for text, level in lines.items() if level == "DEBUG" and text.startswith("Tensors")]
    assert [text.partition(": ")[2] for text in details] == ["bias", "other", "bias ((9,), (2,))"]


def test_no_path_loads_nothing():
    assert Checkpointer(nn.Linear(3, 2)).load("") == {}


def test_a_backbones_weights_find_it_under_a_pyramid(tmp_path):
    """`backbone.X` of a file is `backbone.bottom_up.X` of a model with a pyramid, whose other keys stay."""
    model = nn.Module()
    model.backbone = nn.ModuleDict({"bottom_up": nn.Linear(3, 2), "fpn": nn.Linear(1, 1)})
    file = {"backbone.weight": torch.ones(2, 3), "backbone.bias": torch.ones(2), "backbone.fpn.bias": torch.ones(1)}
    torch.save({"model": file}, tmp_path / "backbone.pth")
    checkpointer = Checkpointer(model)
    checkpointer.load(str(tmp_path / "backbone.pth"))
    assert checkpointer.report.new == ["backbone.fpn.weight"]
    assert model.backbone["bottom_up"].bias.tolist() == [1, 1] and model.backbone["fpn"].bias.tolist() == [1]


def manifest_file(name: str, path: Path) -> str:
    """Write a file of one random number per key of a recorded state dict."""
    shapes = load_manifest(GOLDEN / "manifests" / f"{name}.json").shapes
    torch.save({"model": {key: torch.rand(()).expand(shape) for key, shape in shapes.items()}}, path)
    return str(path)


@pytest.mark.skipif(not (GOLDEN / "manifests").is_dir(), reason=f"no manifests in {GOLDEN}")
@pytest.mark.parametrize(
    ("release", "config", "right"),
    [
        ("raw_dino_r50_4scale", "dino/dino_r50_4scale_12ep.py", "dino/dino_r50_4scale_official.py"),
        ("dino_r50_4scale", "detr/detr_r50_500ep.py", "dino/dino_r50_4scale_12ep.py"),
        ("raw_detr_r50", "conditional_detr/conditional_detr_r50_50ep.py", "detr/detr_r50_500ep.py"),
        ("dn_detr_r50", "dab_detr/dab_detr_r50_50ep.py", "dn_detr/dn_detr_r50_50ep.py"),
        ("dab_detr_r50", "dn_detr/dn_detr_r50_50ep.py", "dab_detr/dab_detr_r50_50ep.py"),
    ],
)
def test_a_release_of_another_model_names_its_config(tmp_path, release, config, right):
    file = manifest_file(release, tmp_path / "release.pth")
    with torch.device("meta"):
        model = instantiate(model_zoo.get_config(config).model)
    with pytest.raises(ConfigError, match=rf"release\.pth has the weights of .*: use the config {right}, or") as error:
        Checkpointer(model).load(file, checkpointables=[])
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not (GOLDEN / "manifests").is_dir(), reason=f"no manifests in {GOLDEN}")
def test_the_config_of_every_release():
    """Read off its keys and shapes; aligned detectors have their parents' tensors, and DC5 has those of R50."""
    same = {
        "align_dab_detr_r50": "dab_detr_r50",
        "align_dab_detr_r50_dc5": "dab_detr_r50",
        "align_detr_r50_dino": "dino_r50_4scale",
        "h_deformable_detr_r50_two_stage": "h_deformable_detr_r50",
        "raw_detr_r50_dc5": "detr_r50",
        "raw_smca_detr_r50": "smca_r50",
    }
    for project in PROJECTS:
        import_module(f"align_detr.projects.{project}")
    checked = []
    for path in sorted((GOLDEN / "manifests").glob("*.json")):
        if path.stem.endswith("_param_groups") or path.stem.startswith("detrex_"):
            continue
        manifest = load_manifest(path)
        release = find_release(manifest.state)
        config = release.config(manifest.state)
        assert config in model_zoo.names()
        begin = same.get(path.stem, path.stem.removeprefix("raw_"))
        checked.append(path.stem)
        assert config.rpartition("/")[2].startswith(begin), path.stem
    assert len(checked) > 20


def test_a_backbone_is_one_line(tmp_path, caplog):
    model = nn.ModuleDict({"backbone": nn.Linear(3, 2), "head": nn.Linear(2, 2)})
    torch.save({f"backbone.{key}": torch.from_numpy(value) for key, value in arrays().items()}, tmp_path / "a.pth")
    with caplog.at_level("INFO"):
        Checkpointer(model).load(str(tmp_path / "a.pth"), checkpointables=[])
    assert "Loaded the backbone (2 tensors); 2 others start fresh." in caplog.text
    del model["head"]
    torch.save({"backbone.weight": torch.zeros(2, 3)}, tmp_path / "less.pth")
    caplog.clear()
    with caplog.at_level("WARNING"):
        Checkpointer(model).load(str(tmp_path / "less.pth"), checkpointables=[])
    assert "Loaded 1 of 2 tensors (75 % of the numbers); new: backbone (1)." in caplog.text


def test_a_pyramid_is_beside_the_backbone(tmp_path, caplog):
    """And the classifier of ImageNet in a file is not worth a word."""
    model = nn.Module()
    model.backbone = nn.ModuleDict({"bottom_up": nn.Linear(3, 2), "fpn": nn.Linear(1, 1)})
    state = {f"backbone.{key}": torch.from_numpy(value) for key, value in arrays().items()}
    torch.save({**state, "fc.weight": torch.zeros(1), "stem.fc.bias": torch.zeros(1)}, tmp_path / "a.pth")
    with caplog.at_level("INFO"):
        Checkpointer(model).load(str(tmp_path / "a.pth"), checkpointables=[])
    lines = {record.getMessage(): record.levelname for record in caplog.records}
    assert lines["Loaded the backbone (2 tensors); 2 others start fresh."] == "INFO"


def test_every_truncation_is_refused_in_one_sentence(tmp_path):
    torch.save({"model": {key: torch.from_numpy(value) for key, value in arrays().items()}}, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    for k in range(20):
        (tmp_path / "cut.pth").write_bytes(whole[: k * len(whole) // 20])
        with pytest.raises(ConfigError, match=r"cut\.pth is damaged or not a PyTorch checkpoint .*: get the") as error:
            read_weights(tmp_path / "cut.pth")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt"])
def test_a_lightning_file_is_unwrapped(tmp_path, suffix):
    state = {f"model.{key}": torch.from_numpy(value) for key, value in arrays().items()}
    content = {"state_dict": state, "pytorch-lightning_version": "2.0", "hyper_parameters": {"lr": 0.1}}
    torch.save(content, tmp_path / f"lightning{suffix}")
    model = nn.Linear(3, 2)
    Checkpointer(model).load(str(tmp_path / f"lightning{suffix}"))
    assert_loaded(model)


def test_mmdetection_is_refused_with_a_remedy(tmp_path):
    state = {"bbox_head.cls_branches.0.weight": torch.zeros(2), "encoder.layers.0.ffn.bias": torch.zeros(2)}
    torch.save({"state_dict": state, "meta": {"epoch": 12}}, tmp_path / "mm.pth")
    with pytest.raises(ConfigError, match=r"mm\.pth holds a detector of mmdetection, .*'bbox_head.cls.*: take the"):
        read_weights(tmp_path / "mm.pth")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"classes": {"names": [1]}}, "has class names that are no list of texts"),
        ({"config": {"yaml": 1}}, "has a config that is no text"),
    ],
)
def test_what_stands_beside_the_weights_is_checked(tmp_path, more, message):
    torch.save({"model": {"weight": torch.zeros(1)}, **more}, tmp_path / "file.pth")
    with pytest.raises(ConfigError, match=rf"file\.pth {message}"):
        read_weights(tmp_path / "file.pth")


@pytest.mark.parametrize("suffix", [".npz", ".pkl", ".pth"])
def test_damage_of_any_kind_is_refused_in_one_sentence(tmp_path, suffix):
    """Bytes changed at random: what can still be read is read, everything else is one sentence."""
    whole, path = tmp_path / f"whole{suffix}", tmp_path / f"changed{suffix}"
    if suffix == ".pth":
        torch.save({"model": {k: torch.from_numpy(v) for k, v in arrays().items()}}, whole)
    elif suffix == ".npz":
        np.savez_compressed(whole, **arrays())
    else:
        whole.write_bytes(pickle.dumps(arrays()))
    generator, refused = random.Random(0), 0
    for _ in range(300):
        changed = bytearray(whole.read_bytes())
        for _ in range(generator.choice([1, 3, 20])):
            changed[generator.randrange(len(changed))] = generator.randrange(256)
        path.write_bytes(changed)
        try:
            read_weights(path)
        except ConfigError as error:
            refused += 1
            assert "\n" not in str(error) and path.name in str(error)
    assert refused > 100


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (torch.zeros(2, 2).to_sparse(), "sparse"),
        (torch.zeros(2, device="meta"), "without numbers"),
        (torch.zeros(2, dtype=torch.complex64), "complex"),
        (torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.qint8), "quantized"),
    ],
)
def test_odd_tensors_are_refused_by_name(tmp_path, value, kind):
    with pytest.raises(ConfigError, match=f"odd.pth has the tensor 'bias', which is {kind}"):
        weights_in({"model": {"weight": torch.zeros(1), "bias": value}}, "odd.pth", averaged=True)


def test_odd_values_beside_the_weights_are_refused(tmp_path):
    state = {"weight": torch.zeros(1)}
    content = {"model": state, "ema": {"model": state, "num_updates": torch.zeros(2)}}
    with pytest.raises(ConfigError, match="odd.pth has ema.num_updates of the type Tensor"):
        weights_in(content, "odd.pth", averaged=True)
    state = OrderedDict(state)
    state._metadata = [1]
    with pytest.raises(ConfigError, match="odd.pth has metadata that are no dictionaries"):
        weights_in({"model": state}, "odd.pth", averaged=True)


def test_big_endian_arrays_are_read(tmp_path):
    np.savez(tmp_path / "big.npz", **{key: value.astype(">f4") for key, value in arrays().items()})
    assert read_weights(tmp_path / "big.npz").state["bias"].tolist() == [7, 8]


def test_statistics_of_frozen_norms_count_unless_a_file_has_none(tmp_path):
    """Files of the model zoo have them folded into the weights, so that mean is 0 and variance 1."""
    model = nn.Sequential(nn.Linear(2, 2), FrozenBatchNorm2d(2), FrozenBatchNorm2d(2))
    state = model.state_dict()
    lacking = {key: value for key, value in state.items() if not key.startswith("1.running")}
    report = load_weights(model, weights_in(lacking, "part.pth", averaged=True))
    assert report.new == ["1.running_mean", "1.running_var"]
    with pytest.raises(ConfigError, match="part.pth lacks 2 of the model's tensors, such as '1.running_mean'"):
        load_weights(model, weights_in(lacking, "part.pth", averaged=True), strict=True)
    folded = {key: value for key, value in state.items() if "running" not in key}
    assert not load_weights(model, weights_in(folded, "folded.pth", averaged=True), strict=True).new


@pytest.mark.parametrize(("levels", "config"), [(4, "dino/dino_r50_4scale_official.py"), (5, None)])
def test_no_config_is_named_for_an_original_dino_that_the_zoo_has_not(levels, config):
    state = {
        "transformer.level_embed": torch.zeros(levels, 4),
        "transformer.enc_out_class_embed.weight": torch.zeros(1),
        "label_enc.weight": torch.zeros(1),
    }
    assert find_release(state).config(state) == config
    report = LoadReport("five.pth", [], ["a"], [], {}, 0.0, 0)
    with pytest.raises(ConfigError, match=config or "no config of the model zoo fits them, write one for their model"):
        report.require_release("the original DINO", config)
