"""SMCA's recipe, number by number."""

import pytest
from detectron2.config import instantiate

from align_detr import model_zoo
from align_detr.modeling.losses import GIoULoss, L1Loss, SigmoidFocalLoss
from align_detr.projects.smca import SMCADETR


def test_recipe() -> None:
    cfg = model_zoo.get_config("SMCA/smca_r50_50ep.py")
    assert cfg.train.epochs == 50 and cfg.dataloader.train.total_batch_size == 32 and cfg.optimizer.lr == 1e-4
    rate = instantiate(cfg.lr_multiplier)
    assert rate(0.79) == 1.0 and rate(0.81) == pytest.approx(0.1)
    assert cfg.train.init_checkpoint.endswith("R-50.pkl") and cfg.model.backbone.freeze_at == 2
    model = cfg.model
    assert model._target_ is SMCADETR and model.queries.num_queries == 300 and model.postprocess.num_detections == 100
    assert model.encoder.num_layers == model.decoder.num_layers == 6
    for layer in (model.encoder.layer, model.decoder.layer):
        assert (layer.embed_dim, layer.num_heads, layer.ffn_dim, layer.dropout) == (256, 8, 2048, 0.1)
    assert model.decoder.layer.smooth == 8.0 and model.head.eps == 1e-5 and model.neck.stride == 32
    losses = [instantiate(loss) for loss in model.criterion.losses]
    assert [(type(x), x.weight) for x in losses] == [(SigmoidFocalLoss, 2.0), (L1Loss, 5.0), (GIoULoss, 2.0)]
    assert [x.weight for x in model.criterion.matcher.costs] == [2.0, 5.0, 2.0]
