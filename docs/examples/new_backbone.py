"""A backbone: anything with detectron2's interface, a dictionary of maps and their shapes."""

from itertools import pairwise

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import nn

from align_detr import model_zoo


class FourConvolutions(Backbone):
    """Four convolutions of stride 2: one map, "res4", at stride 16."""

    def __init__(self, *, channels: int = 128) -> None:
        super().__init__()
        self.channels = channels
        widths = [3, 32, 64, channels, channels]
        layers: list[nn.Module] = []
        for inner, outer in pairwise(widths):
            layers += [nn.Conv2d(inner, outer, 3, stride=2, padding=1), nn.GELU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        """Return the maps by name: x (B, 3, H, W) -> {"res4": (B, C, H / 16, W / 16)}, rounded up."""
        return {"res4": self.layers(x)}

    def output_shape(self):
        """Return the shapes that necks read."""
        return {"res4": ShapeSpec(channels=self.channels, stride=16)}


model = model_zoo.get_config("quickstart/digits_detr.py").model
model.backbone = L(FourConvolutions)(channels=128)
model.neck.update(in_feature="res4", in_channels=128)
