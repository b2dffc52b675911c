"""Recorded random numbers of denoising, and how a query source is made to use them."""

import torch

from align_detr.modeling.queries import DenoisingSource
from align_detr.modeling.queries.noise import Draws
from support.golden import Fixture


def recorded_draws(fixture: Fixture, probability: float) -> Draws:
    """The draws as the sources use them; a file lists new labels for those below `probability` only, in order."""
    given, count = fixture.input, int(fixture.input["tgt_sizes"].sum())
    flip = given["draw_label_rand"]
    label = torch.full_like(flip, -1, dtype=torch.int64)
    label[flip < probability] = given["draw_label_new"]
    sign = given["draw_box_sign01"].view(-1, count, 4) * 2.0 - 1 if "draw_box_sign01" in given else None
    return Draws(
        flip=flip.view(-1, count),
        label=label.view(-1, count),
        box=given["draw_box_rand"].view(-1, count, 4),
        sign=sign,
    )


def replay(source: DenoisingSource, draws: Draws) -> None:
    """Makes the source use these draws; asking for another number of them fails."""

    def draw(copies: int, count: int, device: torch.device) -> Draws:
        assert draws.flip.shape == (copies, count)
        return draws

    source.draw = draw
