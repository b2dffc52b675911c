"""A tiny detector whose losses grow in the course of training."""

from broken_detector import BrokenDetector


class FollowingDetector(BrokenDetector):
    """Losses times 1 + progress; `told` lists what it was told."""

    def __init__(self, **options) -> None:
        super().__init__(how="loss", **options)
        self.progress, self.told = 0.0, []

    def follow(self, progress):
        self.progress = progress
        self.told.append(progress)

    def forward(self, batched_inputs):
        found = super().forward(batched_inputs)
        return {k: loss * (1 + self.progress) for k, loss in found.items()} if self.training else found
