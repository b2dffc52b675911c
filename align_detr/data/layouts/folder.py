"""A data set found in a folder: its layout and its splits, whose annotations are read when they are asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path

from align_detr.data.annotations import Annotations
from align_detr.data.layouts.classes import common_class_names, require_repaired, with_class_names
from align_detr.data.layouts.seeded import divide, divide_names
from align_detr.data.problems import require_sound
from align_detr.data.register import register
from align_detr.data.split_boxes import SplitBoxes
from align_detr.errors import DatasetError


@dataclass(frozen=True)
class Split:
    """A split of a data set: "train", "val" or "test", and how its annotations are read.

    `source` is the file or folder that holds them. `read_boxes` gives what detectors of boxes need of large files; None
    where the annotations have to be read, which tell as well of a file that cannot be used.
    """

    name: str
    source: Path
    read: Callable[[], Annotations]
    read_boxes: Callable[[], SplitBoxes | None] = lambda: None

    @cached_property
    def annotations(self) -> Annotations:
        """Annotations as the files have them, read once; raise DatasetError for files that cannot be read."""
        return self.read()

    @cached_property
    def boxes(self) -> SplitBoxes | None:
        """What `read_boxes` gives, read once."""
        return self.read_boxes()

    @property
    def num_images(self) -> int:
        """Number of images; raise DatasetError for files that cannot be read."""
        return len(self.annotations.images) if self.boxes is None else len(self.boxes)


@dataclass(frozen=True)
class DataFolder:
    """A data set in the folder `root`, its layout (one of LAYOUTS) and its splits by name.

    Nothing has been read yet but the folder's listing. A data set whose files name no split is all "train".
    """

    root: Path
    layout: str
    splits: dict[str, Split]

    @property
    def name(self) -> str:
        """Name of the folder."""
        return (self.root if self.root.is_dir() else self.root.parent).resolve().name

    @cached_property
    def class_names(self) -> list[str]:
        """Names of the classes of all splits, which are read for it: those of the first split, then the others'.

        Raise DatasetError for annotations that cannot be used.
        """
        return common_class_names(
            [
                require_repaired(split.annotations) if split.boxes is None else split.boxes.classes()
                for split in self.splits.values()
            ]
        )

    def split(self, name: str) -> Split:
        """Return the split called `name`; raise DatasetError, with the splits there are, if there is none."""
        if name not in self.splits:
            raise DatasetError(
                f"{self.root} has no {name} split, but {', '.join(self.splits)}: name one of them, or add its files."
            )
        return self.splits[name]

    def require_training(self) -> None:
        """Raise DatasetError without a training split."""
        if "train" not in self.splits:
            raise DatasetError(
                f"{self.root} has no training split, but {', '.join(self.splits)}: add the images to train on."
            )

    def with_validation(self, *, fraction: float, seed: int) -> "DataFolder":
        """Return the same data with a "val" split; where the files have none, divide "train" by `seed`.

        fraction: of the training images that go to "val", at least one.
        """
        if "val" in self.splits:
            return self
        train = self.split("train")

        @cache
        def parts() -> tuple[Annotations, Annotations]:
            return divide(require_sound(train.annotations), fraction=fraction, seed=seed)

        @cache
        def boxes() -> tuple[SplitBoxes | None, SplitBoxes | None]:
            whole = train.boxes
            if whole is None:
                return None, None
            whole.warn()
            names, source = whole.file_names(), whole.source
            one, other = divide_names(names, source=source, fraction=fraction, seed=seed)
            return whole.part(one), whole.part(other)

        divided = {
            "train": Split("train", train.source, lambda: parts()[0], lambda: boxes()[0]),
            "val": Split("val", train.source, lambda: parts()[1], lambda: boxes()[1]),
        }
        return DataFolder(self.root, self.layout, {**self.splits, **divided})

    def with_class_names(self, class_names: list[str]) -> "DataFolder":
        """Return the same data with the categories of every split in the order of `class_names`.

        Raise DatasetError, when a split is read, for a category with objects that is not among them.
        """

        def renumbered(split: Split) -> Callable[[], Annotations]:
            return lambda: with_class_names(require_sound(split.read()), class_names)

        def renumbered_boxes(split: Split) -> SplitBoxes | None:
            boxes = split.read_boxes()
            return boxes and boxes.with_categories(with_class_names(boxes.classes(), class_names).categories)

        splits = {
            name: Split(name, split.source, renumbered(split), partial(renumbered_boxes, split))
            for name, split in self.splits.items()
        }
        return DataFolder(self.root, self.layout, splits)

    def register(self, name: str) -> list[str]:
        """Register every split in detectron2's catalogs as `name`_<split>; return these names.

        A name registered before is replaced. The annotations are read when a data set is loaded.
        """
        names = {f"{name}_{split.name}": split for split in self.splits.values()}
        for full, split in names.items():
            register(full, split.read, split.read_boxes)
        return list(names)
