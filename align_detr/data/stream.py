"""The endless stream of training images, which can begin at any batch."""

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from detectron2.data.samplers import TrainingSampler
from detectron2.utils import comm
from detectron2.utils.serialize import PicklableWrapper
from torch.utils.data import Dataset, Sampler, get_worker_info

from align_detr.data.mixable import require_mixable
from align_detr.data.mixing import Mix
from align_detr.data.worker_faults import CurrentRecords
from align_detr.data.workers import seed_image
from align_detr.errors import ConfigError, DatasetError

Place = tuple[int, int]  # position in the stream of all processes, index of the record
_TRIES = 100


class StreamedImages(Dataset):
    """Mapped records by their place in the stream.

    A worker process seeds its generators from `seed` and the position, so that an image does not depend on how long the
    worker has lived, on its number or on that of the workers. Without workers the generators of the process are used,
    whose states a checkpoint holds. Where the mapper returns None, another record is drawn, as detectron2 does.
    `mixes` see an image in turn, each with mapped records of its own drawing; how far training is follows from the
    position and from `total`, the images of the whole training, so that no process has to be told.
    """

    def __init__(
        self,
        records: Sequence[dict[str, Any]] | CurrentRecords,
        mapper: Callable[[dict[str, Any]], dict[str, Any] | None],
        seed: int,
        mixes: Sequence[Mix] = (),
    ) -> None:
        self.records = records
        self.mixes = list(mixes)
        self.total: int | None = None
        self.mapper = PicklableWrapper(mapper)  # so that a lambda reaches workers that are spawned
        self.seed = seed

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, place: Place) -> dict[str, Any]:
        position, index = place
        if get_worker_info() is not None:
            seed_image(self.seed, position)
        mapped = self._mapped(index)
        return self._mixed(mapped, position) if self.mixes else mapped

    def _mixed(self, mapped: dict[str, Any], position: int) -> dict[str, Any]:
        if self.total is None:
            raise ConfigError(
                "dataloader.train.mixes follows the course of training, whose length is not known: call "
                "plan(max_iter) of the loader, as training does."
            )
        require_mixable(mapped)
        for mix in self.mixes:
            mapped = mix(mapped, position / self.total, self._drawn)
        return mapped

    def _drawn(self) -> dict[str, Any]:
        """Return a mapped record of numpy's generator."""
        return self._mapped(int(np.random.randint(len(self.records))))

    def _mapped(self, index: int) -> dict[str, Any]:
        for _ in range(_TRIES):
            mapped = self.mapper(self.records[index])
            if mapped is not None:
                return mapped
            index = random.randrange(len(self.records))
        raise DatasetError(
            f"The mapper of dataloader.train returned None for {_TRIES} images in a row: correct it, or take such "
            "images out of the data set."
        )


class StreamedBatches(Sampler[list[Place]]):
    """Batches of this process, without end: lists of places. The first is number `start`.

    `wide`, by record, keeps wide and other images in batches of their own, each full before it is yielded.
    """

    def __init__(self, *, size: int, batch_size: int, seed: int, wide: Sequence[bool] | None) -> None:
        self.size, self.batch_size, self.seed, self.wide = size, batch_size, seed, wide
        self.start = 0

    def __iter__(self) -> Iterator[list[Place]]:
        return islice(self._all(), self.start, None)

    def _all(self) -> Iterator[list[Place]]:
        rank, world_size = comm.get_rank(), comm.get_world_size()
        groups: dict[bool, list[Place]] = {False: [], True: []}
        for number, index in enumerate(TrainingSampler(self.size, seed=self.seed)):
            key = self.wide is not None and self.wide[index]
            groups[key].append((rank + number * world_size, index))
            if len(groups[key]) == self.batch_size:
                yield groups[key]
                groups[key] = []


def own_generator(seed: int) -> torch.Generator:
    """Return a generator of this process: what draws from it leaves torch's global one as it is."""
    return torch.Generator().manual_seed(seed + comm.get_rank())
