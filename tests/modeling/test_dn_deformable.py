"""DN-Deformable-DETR: denoising in front of the anchors and contents of DAB-Deformable-DETR."""

import pytest
import torch
from torch.testing import assert_close

from support.detectors import CLASSES, tiny_dn_deformable
from support.inputs import image_input


@pytest.mark.parametrize("autocast", [False, True])
def test_every_batch_has_the_same_losses_and_gradients(autocast: bool) -> None:
    model = tiny_dn_deformable().train()
    names = {f"loss_{x}{where}" for x in ("class", "bbox", "giou") for where in ("", "_0", "_dn", "_dn_0")}
    for counts in ((2, 0), (0, 0), (11, 1)):
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            losses = model([image_input(64, 48 + 16 * i, n, CLASSES) for i, n in enumerate(counts)])
        assert set(losses) == names
        assert all(torch.isfinite(x) and x.dtype == torch.float32 for x in losses.values())
        assert all((x == 0) == (sum(counts) == 0) for name, x in losses.items() if "_dn" in name)
        sum(losses.values()).backward()
        for name, p in model.named_parameters():
            assert p.grad is not None and torch.isfinite(p.grad).all(), (counts, name)


def test_training_and_evaluation_say_the_same() -> None:
    """Denoising queries are invisible to the others; contents are the learned ones and "unknown", with indicator 0."""
    model = tiny_dn_deformable().eval()
    batch = [image_input(64, 48, 2, CLASSES), image_input(64, 64, 1, CLASSES)]
    with torch.no_grad():
        memory = model.encoder(model.extract_features([model.normalize(x["image"]) for x in batch]))
        training, evaluation = model.predict(memory, model.targets(batch)), model.predict(memory)
        (part,) = model.queries(memory)
    assert set(training) == {"dn", "main"} and set(evaluation) == {"main"}
    assert training["dn"].logits.shape == (2, 2, 2 * 2, CLASSES)
    assert_close(training["main"].logits, evaluation["main"].logits, atol=1e-5, rtol=1e-5)
    assert_close(training["main"].boxes, evaluation["main"].boxes, atol=1e-5, rtol=1e-5)
    learned, unknown = model.queries.main.content.weight, model.queries.label_embed.weight[CLASSES]
    assert_close(part.content[0, :, :-1], learned[:, :-1] + unknown)
    assert (part.content[..., -1] == 0).all()
