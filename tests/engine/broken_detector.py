"""A tiny detector that breaks in a step of one's choice."""

import os
import time

import torch
from tiny_detector import TinyDetector, map_record
from torch import nn


class BrokenDetector(TinyDetector):
    """Steps of `broken_steps` (calls in training, from 0) break as `how` says."""

    def __init__(self, *, how: str, broken_steps=(1,), **options) -> None:
        super().__init__(**options)
        self.how, self.broken_steps = how, set(broken_steps)
        self.spoiler = Spoiler()
        self.calls = -1

    def forward(self, batched_inputs):
        """Count the steps by the batch: one that is computed again is the same step."""
        if not self.training:
            return super().forward(batched_inputs)
        key = tuple(x["file_name"] for x in batched_inputs), tuple(map(id, batched_inputs))
        if key != getattr(self, "key", None):
            self.calls, self.key = self.calls + 1, key
        broken = self.calls in self.broken_steps
        if broken and self.how == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        if broken and self.how == "host memory":
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: 12 bytes"
            )
        losses = super().forward(batched_inputs)
        if broken and self.how == "loss":
            losses["loss_bbox"] = self.spoiler(losses["loss_bbox"])
        if broken and self.how == "gradient":
            losses["loss_bbox"] = losses["loss_bbox"] + torch.sqrt(0 * self.bbox_embed.bias.sum()).sum()
        return losses


class Spoiler(nn.Module):
    """NaN in place of any number."""

    def forward(self, x):
        return x * float("nan")


def map_or_die(record):
    """Kill the worker process that reads image 3."""
    if record["image_id"] == 3:
        os.kill(os.getpid(), 9)
    return map_record(record)


def map_or_hang(record):
    """Read no image."""
    time.sleep(600)
    return map_record(record)
