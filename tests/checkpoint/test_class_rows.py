"""Rows of the classifiers: of releases that have one row per COCO id, those of the 80 classes that exist."""

import torch

from align_detr.checkpoint.conversion import convert
from align_detr.checkpoint.detr import coco_category_ids, select_class_rows


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
