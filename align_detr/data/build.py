"""Data loaders for training and evaluation, the same on every detectron2 since v0.5."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from detectron2.data.common import MapDataset
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from torch.utils.data import BatchSampler, DataLoader

from align_detr.checks import check_count
from align_detr.cpus import usable_cpus
from align_detr.data.datasets import load_dataset, require_objects
from align_detr.data.lazy_records import are_wide, count_objects, selected, shared
from align_detr.data.mixable import check_mixes
from align_detr.data.mixing import Mix
from align_detr.data.stream import StreamedBatches, StreamedImages, own_generator
from align_detr.data.worker_faults import CurrentRecords, watched
from align_detr.data.workers import start_worker
from align_detr.errors import AlignDetrError, ConfigError

Mapper = Callable[[dict[str, Any]], dict[str, Any]]
logger = logging.getLogger(__name__)


def build_train_loader(
    *,
    dataset: str | Iterable[str],
    mapper: Mapper,
    total_batch_size: int,
    num_workers: int = 4,
    seed: int | None = None,
    aspect_ratio_grouping: bool = True,
    filter_empty: bool = False,
    mixes: Sequence[Mix] | None = (),
) -> "TrainLoader":
    """Return an endless stream of shuffled batches, each a list of total_batch_size / world size mapped records.

    dataset: names of registered data sets. seed: the same seed gives the same order of images and, with worker
    processes of any number, the same augmentations; without workers these follow numpy's global generator. None draws a
    seed from that. aspect_ratio_grouping: a batch holds only wide or only tall images, so that it needs less padding.
    filter_empty: leave out images without objects (DETR keeps them). mixes: `Mosaic` and `MixUp`, applied in turn to
    what the mapper gives, None for none; training tells the loader its length, others call `TrainLoader.plan`.
    Raise ConfigError for a batch that the processes cannot share equally, for mixes that are none, and for
    mixes of masks; DatasetError as `load_dataset` does.
    """
    dataset = _require("train", dataset, mapper)
    num_workers = _check_workers("train", num_workers)
    mixes = check_mixes(mixes, mapper)
    world_size = comm.get_world_size()
    if total_batch_size <= 0 or total_batch_size % world_size:
        raise ConfigError(
            f"dataloader.train.total_batch_size is {total_batch_size}, which {world_size} process(es) cannot share "
            f"equally: set it to a positive multiple of {world_size}."
        )
    records = load_dataset(dataset, complete=_reads_all(mapper))
    require_objects(dataset, records)
    if filter_empty:
        records = _with_objects(records)
    order_seed = comm.shared_random_seed() if seed is None else seed
    wide = are_wide(records) if aspect_ratio_grouping else None
    images = StreamedImages(CurrentRecords(shared(records)), mapper, order_seed, mixes)
    batch_size = total_batch_size // world_size
    return TrainLoader(
        images,
        batch_sampler=StreamedBatches(size=len(images), batch_size=batch_size, seed=order_seed, wide=wide),
        num_workers=num_workers,
        collate_fn=as_list,
        worker_init_fn=start_worker,
        pin_memory=torch.cuda.is_available(),
        generator=None if seed is None else own_generator(seed),
    )


def build_test_loader(
    *, dataset: str | Iterable[str], mapper: Mapper, batch_size: int = 1, num_workers: int = 4
) -> DataLoader:
    """Return batches (lists) of up to batch_size mapped records: every image once, in order, shared among the ranks.

    Raise DatasetError as `load_dataset` does.
    """
    dataset = _require("test", dataset, mapper)
    num_workers = _check_workers("test", num_workers)
    check_count(batch_size, "dataloader.test.batch_size")
    records = shared(load_dataset(dataset, complete=_reads_all(mapper)))
    images = MapDataset(CurrentRecords(records), mapper)
    batches = BatchSampler(InferenceSampler(len(images)), batch_size, drop_last=False)
    return ImageLoader(
        images,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=as_list,
        worker_init_fn=start_worker,
        pin_memory=torch.cuda.is_available(),
    )


class ImageLoader(DataLoader):
    """A DataLoader that passes a worker's AlignDetrError on as its one sentence, without a traceback, and makes one of
    the death or silence of a worker.
    """

    def __iter__(self) -> Iterator:  # type: ignore[override]  # torch promises its private iterator class
        records = getattr(self.dataset, "records", None) or getattr(self.dataset, "_dataset", None)  # of a MapDataset
        batches = super().__iter__()
        try:
            with watched(batches, records if isinstance(records, CurrentRecords) else None, self.timeout):
                yield from batches
        except AlignDetrError as error:
            # torch puts the worker's traceback into the message, which ends with "<type>: <sentence>"
            kind = type(error)
            _, traceback, sentence = str(error).rpartition(f"{kind.__module__}.{kind.__qualname__}: ")
            if not traceback:  # an error of this process
                raise
            raise kind(sentence.strip()) from error


class TrainLoader(ImageLoader):
    """The loader of training: its images follow from a seed and from the number of the batch that it begins with."""

    batch_sampler: StreamedBatches
    dataset: StreamedImages

    @property
    def order_seed(self) -> int:
        """Seed of the order of images, and of the augmentations in workers."""
        return self.batch_sampler.seed

    def plan(self, max_iter: int) -> None:
        """Let the mixes of images know how many batches the whole training has. To be called before iteration."""
        self.dataset.total = max_iter * self.batch_sampler.batch_size * comm.get_world_size()

    def start_at(self, batch: int, order_seed: int | None = None) -> None:
        """Begin with batch number `batch` of the stream; `order_seed` replaces a seed that was drawn, not a given one.

        To be called before iteration, which from then on draws nothing from torch's global generator.
        """
        if order_seed is not None and self.generator is None:
            self.batch_sampler.seed = self.dataset.seed = order_seed
        self.batch_sampler.start = batch
        if batch and self.generator is None:
            self.generator = own_generator(self.order_seed)


def set_timeout(loader: Any, seconds: float) -> None:
    """Let a loader with worker processes wait at most `seconds` (0: for ever) for a batch; others stay as they are."""
    inner = loader if isinstance(loader, DataLoader) else getattr(loader, "dataset", None)  # detectron2 groups by shape
    if seconds and isinstance(inner, DataLoader) and inner.num_workers:
        inner.timeout = seconds


def as_list(batch: Any) -> Any:
    """Return the batch unchanged: images differ in size, so that a batch stays a list."""
    return batch


def _require(loader: str, dataset: str | Iterable[str] | None, mapper: Mapper | None) -> str | Iterable[str]:
    """Return the data set of a loader. Raise ConfigError if the config has none, or no mapper."""
    if dataset is None:
        raise ConfigError(f"dataloader.{loader}.dataset is null: set it to the name of a data set.")
    if mapper is None:
        raise ConfigError(f"dataloader.{loader}.mapper is null: set it to what reads an image, such as a DetrMapper.")
    return dataset


def _check_workers(loader: str, num_workers: int | None) -> int:
    """Return the number of worker processes, 0 for None, at most one per CPU that may be used: their number changes no
    batch. Raise ConfigError unless it is a whole number.
    """
    number = check_count(num_workers or 0, f"dataloader.{loader}.num_workers", 0)
    if number > (cpus := usable_cpus()):
        logger.info("dataloader.%s.num_workers is %d, of which %d start: one per CPU to use.", loader, number, cpus)
    return min(number, cpus)


def _reads_all(mapper: Mapper) -> bool:
    """Return whether a mapper may read segmentations or keypoints: all but those whose own class says that it does not,
    as a subclass may read more than its parent.
    """
    return not vars(type(mapper)).get("boxes_only", False)


def _with_objects(records: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """Return the records with an object that is not a crowd region."""
    kept = selected(records, count_objects(records) > 0)
    logger.info("Left out %d images without objects of %d.", len(records) - len(kept), len(records))
    return kept
