"""Denoising queries against the recorded ones, with their recorded random numbers."""

import torch
from torch import Tensor, nn
from torch.testing import assert_close

from align_detr.modeling.decoder import blocked_pairs
from align_detr.modeling.queries import ContrastiveDenoisingQueries, DenoisingQueries, DenoisingSource
from align_detr.structures import Memory, QueryPart, Targets
from support.draws import recorded_draws, replay
from support.golden import Fixture, fixtures


class PlainBoxes(nn.Module):
    """`num_queries` queries with content zero and the same box for two images."""

    def __init__(self, num_queries: int, embed_dim: int) -> None:
        super().__init__()
        self.size = (num_queries, embed_dim)

    def forward(self, memory: Memory, proposals: None = None, targets: Targets | None = None) -> list[QueryPart]:
        images, (queries, dim) = len(targets.counts), self.size
        return [QueryPart("main", torch.zeros(images, queries, dim), reference=torch.full((images, queries, 4), 0.5))]


def check(source: DenoisingSource, fixture: Fixture, table: str, content: Tensor, boxes: Tensor, slots: int) -> None:
    """Contents, boxes (recorded as logits), mask and known matches; `slots` queries are a group."""
    source.label_embed.load_state_dict({"weight": fixture.weights[table]}, strict=True)
    targets = fixture.targets()
    dn, main = source(None, None, targets)
    assert (dn.name, main.name) == ("dn", "main")
    assert_close(dn.content, content, atol=1e-5, rtol=0)
    assert_close(dn.reference, boxes.sigmoid(), atol=0, rtol=1e-5)
    assert torch.equal(blocked_pairs([dn, main]), fixture.output["attn_mask"])
    expected = {
        (0, image, group * slots + target, target)
        for image, n in enumerate(targets.counts)
        for group in range(int(dn.scale))
        for target in range(n)
    }
    match = dn.match
    found = torch.stack([match.row, match.image, match.query, match.target], dim=1).tolist()
    assert len(found) == len(expected) and set(map(tuple, found)) == expected
    assert match.weight is None


@fixtures("dn_queries_*")
def test_denoising_queries(fixture: Fixture) -> None:
    meta, out = fixture.meta, fixture.output
    source = DenoisingQueries(
        main=PlainBoxes(meta["num_queries"], meta["label_embed_dim"]),
        num_classes=meta["num_classes_arg"] - 1,
        embed_dim=meta["label_embed_dim"],
        groups=meta["denoising_groups"],
        label_noise=meta["label_noise_prob"],
        box_noise=meta["box_noise_scale"],
        indicator=meta["with_indicator"],
    )
    replay(source, recorded_draws(fixture, source.label_noise))
    slots = int(out["max_gt_num_per_image"])
    check(source, fixture, "label_encoder.weight", out["label_queries"], out["box_queries"], slots)
    assert source(None, None, fixture.targets())[0].scale == int(out["denoising_groups"])


@fixtures("cdn_queries_*")
def test_contrastive_denoising_queries(fixture: Fixture) -> None:
    meta, out = fixture.meta, fixture.output
    source = ContrastiveDenoisingQueries(
        main=PlainBoxes(meta["num_queries"], meta["hidden_dim"]),
        num_classes=meta["num_classes"],
        embed_dim=meta["hidden_dim"],
        dn_number=meta["dn_number"],
        label_noise=meta["label_noise_ratio"],
        box_noise=meta["box_noise_scale"],
    )
    replay(source, recorded_draws(fixture, source.label_noise / 2))
    slots = int(out["single_padding"])
    check(source, fixture, "label_enc.weight", out["input_query_label"], out["input_query_bbox"], slots)
    assert source(None, None, fixture.targets())[0].scale == int(out["dn_num"])
