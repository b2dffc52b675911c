"""Writing of shards: tar files in WebDataset's form, and an index of each split."""

import json
import tarfile
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

from align_detr.data.annotations import Annotations
from align_detr.data.layouts.copying import free_names, image_bytes
from align_detr.data.layouts.images import with_progress
from align_detr.data.shard_images import is_url
from align_detr.errors import DatasetError

MEGABYTES = 256
"""Size from which on a shard is full."""


def write(
    splits: Mapping[str, Annotations], out: Path, *, megabytes: float = MEGABYTES, url: str | None = None
) -> None:
    """Write <split>-000000.tar and so on, and the index shards_<split>.json, of each split.

    A shard holds KEY.jpg (with the ending that the image has; its bytes are unchanged) and KEY.json of each image, as
    every WebDataset reader takes them: {"image": COCO's entry, "annotations": COCO's entries with the name of their
    class as "category"}. KEY is the image's number in its split. The index is a COCO file that also says where each
    image lies; boxes, ids and the order of the images are those of `splits`.
    megabytes: a shard that has as many is full. url: where shards will lie that are not beside the index.
    Raise DatasetError for an image file that is missing, and for options that cannot be used.
    """
    if not megabytes > 0:
        raise DatasetError(f"A shard cannot be full at {megabytes} megabytes: use a positive number.")
    if url is not None and not is_url(url):
        raise DatasetError(f"'{url}' is no URL of shards: use one such as https://host/folder or s3://bucket/folder.")
    out.mkdir(parents=True, exist_ok=True)
    for split, annotations in splits.items():
        names = free_names(annotations, set())
        images: list[dict[str, Any]] = [
            {**image, "file_name": name} for image, name in zip(annotations.images, names, strict=True)
        ]
        shards = _write_shards(split, annotations, images, out, megabytes * 2**20)
        index = {
            "shards": shards,
            **({} if url is None else {"url": url.rstrip("/")}),
            "categories": annotations.categories,
            "images": images,
            "annotations": annotations.annotations,
        }
        (out / f"shards_{split}.json").write_text(json.dumps(index, ensure_ascii=False), encoding="utf-8")


def _write_shards(
    split: str, annotations: Annotations, images: list[dict[str, Any]], out: Path, full: float
) -> list[dict[str, Any]]:
    """Write the tar files; return what the index says of each, and add to `images` where they lie."""
    classes = {category["id"]: category["name"] for category in annotations.categories}
    objects: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for each in annotations.annotations:
        objects[each["image_id"]].append({**each, "category": classes[each["category_id"]]})
    shards = _Shards(out, split, full)
    with shards.stack:
        jobs = with_progress(annotations.images, count=len(images), title=f"Images to shards of {split}")
        for row, (image, entry) in enumerate(zip(jobs, images, strict=True)):
            text = json.dumps({"image": entry, "annotations": objects[entry["id"]]}, ensure_ascii=False)
            member = f"{row:09d}{_ending(entry['file_name'])}"
            entry |= shards.add(member, image_bytes(annotations, image), text.encode())
    for shard in shards.written:
        shard["bytes"] = (out / shard["file"]).stat().st_size
    return shards.written


class _Shards:
    """The tar files of a split, one after the other. `written`: their names and numbers of images."""

    def __init__(self, out: Path, split: str, full: float) -> None:
        self.out, self.split, self.full = out, split, full
        self.written: list[dict[str, Any]] = []
        self.stack = ExitStack()
        self._begin()

    def _begin(self) -> None:
        self.stack.close()
        name = f"{self.split}-{len(self.written):06d}.tar"
        self.written.append({"file": name, "images": 0})
        self._file = self.stack.enter_context((self.out / name).open("wb"))
        self._tar = self.stack.enter_context(tarfile.TarFile(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT))

    def add(self, member: str, image: bytes, text: bytes) -> dict[str, Any]:
        """Add an image and its annotations; return where the index finds the image."""
        if self._file.tell() >= self.full:
            self._begin()
        offset = self._file.tell() + tarfile.BLOCKSIZE  # behind the header
        _add(self._tar, member, image)
        _add(self._tar, str(Path(member).with_suffix(".json")), text)
        self.written[-1]["images"] += 1
        return {"shard": len(self.written) - 1, "member": member, "offset": offset, "size": len(image)}


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)  # readable by all, of no date: the same images make the same file
    info.size = len(content)
    tar.addfile(info, BytesIO(content))


def _ending(name: str) -> str:
    """Return the ending of an image's name as WebDataset takes it: one, of small letters."""
    ending = Path(name).suffix.lower()
    return ending if ending[1:].isascii() and ending[1:].isalnum() else ".img"
