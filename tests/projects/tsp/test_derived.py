"""Detectors of other projects that derive from TSP's."""

from typing import Any

import pytest
from detectron2.config import CfgNode, configurable, get_cfg

from align_detr.config import add_align_detr_config
from align_detr.projects.tsp.fcos.detector import TSPFCOS
from align_detr.projects.tsp.rcnn.detector import TSPRCNN


@pytest.mark.parametrize(("parent", "config"), [(TSPFCOS, "TSP/tsp_fcos_digits"), (TSPRCNN, "TSP/tsp_rcnn_digits")])
def test_a_subclass_with_an_argument_of_its_own(parent: type, config: str) -> None:
    """detectron2 builds it from the two yacs keys."""

    class WithTemperature(parent):
        @configurable
        def __init__(self, *, temperature: float, **options: Any) -> None:
            super().__init__(**options)
            self.temperature = temperature

        @classmethod
        def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
            return {"temperature": 2.0, **super().from_config(cfg)}

    cfg = get_cfg()
    add_align_detr_config(cfg)
    cfg.MODEL.ALIGN_DETR.CONFIG = config
    model = WithTemperature(cfg)
    assert model.temperature == 2 and model.num_classes == 10
