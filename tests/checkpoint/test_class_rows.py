"""Rows of the classifiers: of releases that have one row per COCO id, and of files that name their classes."""

from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from torch import nn

from align_detr.checkpoint.contents import Weights, read_weights, write_weights
from align_detr.checkpoint.conversion import convert
from align_detr.checkpoint.detr import coco_category_ids, select_class_rows
from align_detr.checkpoint.loading import load_weights
from align_detr.errors import ConfigError
from support.detectors import deformable_node
from support.official import official_names, small_detr
from support.shrink import small_model


def test_coco_rows_are_picked_by_id() -> None:
    rows = torch.arange(92.0)[:, None]
    picked = select_class_rows(rows, num_classes=80)[:, 0].tolist()
    assert picked == [*coco_category_ids(), 91] and len(picked) == 81
    assert picked[:13] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14]  # 12 is not in use
    assert select_class_rows(rows, num_classes=3) is rows


def test_rows_of_deformable_detectors() -> None:
    """The first class of two-stage proposals is "object" and stays; all others are picked by their id."""
    state = {
        "transformer.level_embed": torch.zeros(1, 4),
        "transformer.decoder.bbox_embed.0.layers.0.bias": torch.zeros(1),
        "transformer.decoder.layers.0.norm1.bias": torch.zeros(1),
        "class_embed.0.bias": torch.arange(91.0),
        "class_embed.1.bias": torch.arange(91.0),
    }
    converted = convert(state, num_classes=80)
    assert converted["head.class_embed.0.bias"].tolist() == coco_category_ids()
    assert converted["proposals.class_embed.bias"].tolist() == coco_category_ids()
    two_stage = convert({**state, "transformer.pos_trans.weight": torch.zeros(1)}, num_classes=80)
    assert two_stage["head.class_embed.0.bias"].tolist() == coco_category_ids()
    assert two_stage["proposals.class_embed.bias"].tolist() == [0, *coco_category_ids()[1:]]
    assert len(convert(state, num_classes=20)["head.class_embed.0.bias"]) == 91


def test_rows_of_dino() -> None:
    """Of the original 91 rows, for classes and denoising labels alike; the labels' row 91 stands for nothing."""
    rows = torch.arange(92.0)[:, None]
    state = {
        "transformer.level_embed": torch.zeros(1, 4),
        "transformer.decoder.layers.0.norm1.bias": torch.zeros(1),
        "transformer.decoder.bbox_embed.0.layers.0.bias": torch.zeros(1),
        "transformer.enc_out_class_embed.weight": rows[:-1],
        "class_embed.0.weight": rows[:-1],
        "label_enc.weight": rows,
    }
    ids = coco_category_ids()
    converted = convert(state, num_classes=80)
    for place in ("head.class_embed", "proposals.class_embed", "queries.label_embed"):
        assert converted[f"{place}.weight"].flatten().tolist() == ids, place
    assert convert(state, num_classes=91)["queries.label_embed.weight"].flatten().tolist() == list(range(91))


def build(kind: str, num_classes: int, seed: int) -> nn.Module:
    """Return a small detector whose numbers depend on `seed`."""
    model = instantiate(deformable_node(kind, num_classes=num_classes))
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=generator)
    return model


def of_training(model: nn.Module, names: list[str] | None, path: Path) -> Weights:
    """Return the weights of a file that training writes."""
    write_weights(path, model, class_names=names, config=None, averaged=False)
    return read_weights(path)


def test_rows_are_taken_over_by_name(tmp_path: Path) -> None:
    """Of classes, proposals and denoising labels: c and a come from the file, e is new, and all else is the file's."""
    source, model = build("dino", 4, 1), build("dino", 3, 2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    weights = of_training(source, ["a", "b", "c", "d"], tmp_path / "weights.pth")
    report = load_weights(model, weights, class_names=["c", "e", "a"])
    classified = 0
    for key, value in model.state_dict().items():
        theirs = source.state_dict()[key]
        if "class_embed" in key or "label_embed" in key:
            classified += 1
            assert torch.equal(value, torch.stack([theirs[2], before[key][1], theirs[0]])), key
        else:
            assert torch.equal(value, theirs), key
    assert classified == 2 * 2 + 2 + 1  # weights and biases of two layers and of the proposals, and the labels
    count = len({id(p) for p in model.state_dict(keep_vars=True).values()})
    assert str(report) == (
        f"Loaded {count} of {count} tensors ({int(100 * report.share)} % of the numbers); classes by name: c, a; "
        "new: class e."
    )
    assert 0.99 < report.share < 1
    with pytest.raises(ConfigError, match="does not know the classes e: train it for the classes of the data"):
        load_weights(model, weights, class_names=["c", "e", "a"], strict=True)


def test_the_same_classes_in_another_order_are_moved(tmp_path: Path) -> None:
    source, model = build("dino", 3, 1), build("dino", 3, 2)
    weights = of_training(source, ["a", "b", "c"], tmp_path / "weights.pth")
    report = load_weights(model, weights, class_names=["b", "c", "a"], strict=True)
    bias = source.head.class_embed[0].bias
    assert torch.equal(model.head.class_embed[0].bias, bias[torch.tensor([1, 2, 0])])
    assert report.share == 1 and "classes by name: b, c, a." in str(report)


@pytest.mark.parametrize("names", [["a", "b", "c", "d"], None])
def test_other_classes_start_fresh(tmp_path: Path, names: list[str] | None) -> None:
    """Those of which the file knows none, and those of another number in a file without names."""
    source, model = build("dino", 4, 1), build("dino", 3, 2)
    before = model.head.class_embed[0].bias.clone()
    report = load_weights(model, of_training(source, names, tmp_path / "weights.pth"), class_names=["x", "y", "z"])
    assert torch.equal(model.head.class_embed[0].bias, before)
    assert torch.equal(model.queries.main.content.weight, source.queries.main.content.weight)
    assert str(report).endswith("; new: classes (3 instead of 4): head, proposals, label embedding.")
    assert len(report.new) == 7


def test_rows_of_proposals_that_know_no_class(tmp_path: Path) -> None:
    """The first row of Deformable-DETR's proposals is "object", whatever the first class is."""
    source, model = build("two_stage", 3, 1), build("two_stage", 2, 2)
    load_weights(model, of_training(source, ["a", "b", "c"], tmp_path / "weights.pth"), class_names=["c", "b"])
    assert model.head.class_embed[0].bias.tolist() == source.head.class_embed[0].bias[[2, 1]].tolist()
    assert model.proposals.class_embed.bias.tolist() == source.proposals.class_embed.bias[[0, 1]].tolist()


def test_official_rows_are_taken_by_category_id(tmp_path: Path) -> None:
    """COCO's ids: person 1, dog 18, zebra 24; the last of 92 rows is "no object"; a unicorn is new."""
    rows = torch.randn(92, 16)
    official = {**official_names(small_detr()), "class_embed.weight": rows, "class_embed.bias": torch.randn(92)}
    torch.save({"model": official}, tmp_path / "detr.pth")
    weights = read_weights(tmp_path / "detr.pth")
    for names, ids in ((["person", "dog", "zebra"], [1, 18, 24, 91]), (["dog", "unicorn"], [18, None, 91])):
        model = small_detr(len(names))
        before = model.head.class_embed.weight.clone()
        report = load_weights(model, weights, class_names=names)
        expected = [before[row] if i is None else rows[i] for row, i in enumerate(ids)]
        assert torch.equal(model.head.class_embed.weight, torch.stack(expected))
        assert str(report).endswith("; new: class unicorn.") == ("unicorn" in names)
    model = small_detr(3)  # whose classes have no names: all of them start fresh, "no object" does not
    report = load_weights(model, weights)
    assert torch.equal(model.head.class_embed.weight[-1], rows[91])
    assert str(report).endswith("; new: classes (3 instead of 91): head.")


def test_classes_of_an_rcnn() -> None:
    """The scores' last row is the background; boxes per class have four rows each."""
    source = instantiate(small_model("FasterRCNN/faster_rcnn_r50_fpn_36ep.py", num_classes=3))
    model = instantiate(small_model("FasterRCNN/faster_rcnn_r50_fpn_36ep.py", num_classes=2))
    state = {key: torch.randn_like(value) for key, value in source.state_dict().items()}
    weights = Weights(state, averaged=False, class_names=["a", "b", "c"], config=None, iteration=None, path="w.pth")
    report = load_weights(model, weights, class_names=["c", "a"])
    head = "roi_heads.box_predictor."
    assert torch.equal(model.roi_heads.box_predictor.cls_score.bias, state[f"{head}cls_score.bias"][[2, 0, 3]])
    rows = [8, 9, 10, 11, 0, 1, 2, 3]
    assert torch.equal(model.roi_heads.box_predictor.bbox_pred.bias, state[f"{head}bbox_pred.bias"][rows])
    assert report.share == 1


@pytest.mark.parametrize(
    ("theirs", "ours", "rows"),
    [
        (["a", "a", "c"], ["c", "b", "a"], {0: 2}),
        (["a", "b", "c"], ["c", "a", "a"], {0: 2}),
        (["a", "a", "c"], ["a", "a", "c"], {0: 0, 1: 1, 2: 2}),
    ],
)
def test_names_of_several_classes_are_not_taken_over(
    theirs: list[str], ours: list[str], rows: dict[int, int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Such classes start fresh, which is said; the same list of names keeps all its rows."""
    source, model = build("dino", 3, 1), build("dino", 3, 2)
    before = model.head.class_embed[0].bias.clone()
    load_weights(model, of_training(source, theirs, tmp_path / "weights.pth"), class_names=ours)
    expected = [source.head.class_embed[0].bias[rows[k]] if k in rows else before[k] for k in range(3)]
    assert torch.equal(model.head.class_embed[0].bias, torch.stack(expected))
    assert ("The classes a occur more than once in" in caplog.text) == (theirs != ours)
