"""Data sets in shards: the same records, images and batches as from the folder, and one sentence for every damage."""

import io
import json
import tarfile
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.utils import comm
from PIL import Image

from align_detr.cli.main import main
from align_detr.data import DetrMapper, build_test_loader, build_train_loader, find, load_dataset
from align_detr.data.annotations import Annotations
from align_detr.data.convert import convert
from align_detr.data.layouts import shards_writer
from align_detr.data.layouts.copying import image_bytes
from align_detr.data.register import register
from align_detr.data.shard_images import name_of_image
from align_detr.errors import DatasetError
from support import trees
from support.datasets import forgotten

COUNT = 12
SMALL = 0.004  # megabytes: a shard is full after a few of the images below


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a COCO data set of noise, wide and tall, with a photo that EXIF turns and one of another mode and ending.

    Ids are neither in order nor counted from 1, and boxes lie between pixels.
    """
    root = tmp_path / "cells"
    for split, count in (("train", COUNT), ("val", 3)):
        images, objects = [], []
        rng = np.random.default_rng(count)
        (root / "images" / split / "cam 1").mkdir(parents=True)
        for k in range(count):
            width, height = (40, 30) if k % 2 else (30, 44)
            photo = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
            exif = Image.Exif()
            if k == 1:
                exif[0x0112] = 6
                width, height = height, width
            name = f"cam 1/a.b {k}.JPG" if k % 3 else f"{k}.png"
            photo = photo.convert("L") if k == 3 else photo
            photo.save(root / "images" / split / name, format="JPEG" if k % 3 else "PNG", exif=exif)
            images.append({"id": 1000 - 7 * k, "file_name": name, "width": width, "height": height, "license": k})
            for n in range(k % 3):
                box = [3.125 + n, 4.1, 10 / 3, 12.7]
                objects.append({"id": len(objects) + 50, "image_id": images[-1]["id"], "category_id": 4 + 3 * n})
                objects[-1] |= {"bbox": box, "area": box[2] * box[3], "iscrowd": int(k == 4 and n == 0)}
        categories = [{"id": 7, "name": "Zelle, groß"}, {"id": 4, "name": "star"}, {"id": 9, "name": "unused"}]
        content = {"images": images, "annotations": objects, "categories": categories}
        trees.write_json(root / f"annotations/instances_{split}.json", content)
    return root


@pytest.fixture
def shards(source: Path, tmp_path: Path) -> Path:
    """Return the same data set in shards."""
    convert(source, to="shards", out=tmp_path / "shards", shard_megabytes=SMALL)
    return tmp_path / "shards"


def records(folder: Path, split: str = "train") -> list[dict]:
    """Return the records of a split, with the names of the images alone."""
    with forgotten("of_shards_train", "of_shards_val"):
        find(folder).register("of_shards")
        loaded = load_dataset(f"of_shards_{split}")
    return [{**record, "file_name": Path(name_of_image(record["file_name"])).name} for record in loaded]


def batches(folder: Path, *, workers: int = 0, start: int = 0, count: int = 8) -> list[list[tuple]]:
    """Return id, pixels and boxes of the images of the first batches of training."""
    mapper = DetrMapper(
        augmentations=[T.RandomFlip(), T.ResizeShortestEdge([24, 28, 32], sample_style="choice")], is_train=True
    )
    with forgotten("of_shards_train", "of_shards_val"):
        find(folder).register("of_shards")
        loader = build_train_loader(
            dataset="of_shards_train", mapper=mapper, total_batch_size=2, num_workers=workers, seed=3
        )
    loader.start_at(start)
    np.random.seed(8)
    return [
        [(x["image_id"], x["image"], x["instances"].gt_boxes.tensor, x["instances"].gt_classes) for x in batch]
        for batch in islice(loader, count)
    ]


def same(one: list[list[tuple]], other: list[list[tuple]]) -> bool:
    """Return whether batches are equal bit by bit."""
    pairs = [(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)]
    return all(a[0] == b[0] and all(map(torch.equal, a[1:], b[1:])) for a, b in pairs)


def rewrite(path: Path, change) -> None:
    """Write a JSON file with a changed content."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def tar_of(path: Path, **members: bytes) -> None:
    """Write a tar file; in the members' names, __ stands for a point."""
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name.replace("__", "."))
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def test_records_are_those_of_the_folder(source, shards):
    """Ids, sizes, boxes, classes and their order, crowd regions and photos without objects, to the last bit."""
    for split in ("train", "val"):
        assert records(shards, split) == records(source, split)
    assert find(shards).class_names == find(source).class_names == ["star", "Zelle, groß", "unused"]
    index = json.loads((shards / "shards_train.json").read_text())
    assert len(index["shards"]) > 2 and sum(shard["images"] for shard in index["shards"]) == COUNT
    assert len(list(shards.glob("train-*.tar"))) == len(index["shards"])


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_the_folder_also_from_a_later_one(source, shards, workers):
    """Turned by EXIF, grey or PNG: the pixels are equal, and so are those behind `start_at`, over three epochs."""
    expected = batches(source, workers=workers, count=18)
    assert same(batches(shards, workers=workers, count=18), expected)
    if workers:
        assert same(batches(shards, workers=workers, start=7, count=11), expected[7:])
    one_epoch = [each[0] for batch in batches(shards, workers=workers, count=18) for each in batch]
    assert set(one_epoch) == {1000 - 7 * k for k in range(COUNT)}


def test_two_processes_see_each_image_once_per_epoch(shards, monkeypatch):
    """In training and in evaluation, whatever the number of shards."""
    seen = []
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    with forgotten("of_shards_train", "of_shards_val"):
        find(shards).register("of_shards")
        for rank in range(2):
            monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
            loader = build_train_loader(
                dataset="of_shards_train",
                mapper=DetrMapper(augmentations=[], is_train=True),
                total_batch_size=4,
                num_workers=0,
                seed=1,
                aspect_ratio_grouping=False,
            )
            seen += [x["image_id"] for batch in islice(loader, COUNT // 4) for x in batch]
            test = build_test_loader(
                dataset="of_shards_val", mapper=DetrMapper(augmentations=[], is_train=False), num_workers=0
            )
            seen += [f"val {x['image_id']}" for batch in test for x in batch]
    assert sorted(map(str, seen)) == sorted(
        [str(1000 - 7 * k) for k in range(COUNT)] + [f"val {1000 - 7 * k}" for k in range(3)]
    )


def test_shards_are_the_same_bytes_again_and_read_as_tar_files(source, shards, tmp_path):
    """A shard holds each image as it is, behind it its annotations with the names of the classes."""
    convert(shards, to="shards", out=tmp_path / "again", shard_megabytes=SMALL)
    files = sorted(path.name for path in shards.iterdir())
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == files
    assert all((shards / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in files)
    with tarfile.open(shards / "train-000001.tar") as tar:
        assert tar.getnames()[:2] == ["000000001.jpg", "000000001.json"]
        assert tar.extractfile("000000001.jpg").read() == (source / "images/train/cam 1/a.b 1.JPG").read_bytes()
        content = json.load(tar.extractfile("000000001.json"))
    assert content["image"] == {"id": 993, "file_name": "cam 1/a.b 1.JPG", "width": 30, "height": 40, "license": 1}
    (only,) = content["annotations"]
    assert (only["category"], only["category_id"], only["bbox"]) == ("star", 4, [3.125, 4.1, 10 / 3, 12.7])


def test_shards_are_read_without_their_index_too(source, shards, tmp_path):
    """As other tools write them: the annotations are in the shards; classes without objects are not."""
    (shards / "classes.txt").write_text("star\nZelle, groß\nunused\n", encoding="utf-8")
    for split in ("train", "val"):
        (shards / f"shards_{split}.json").unlink()
        assert records(shards, split) == records(source, split)
    (shards / "classes.txt").unlink()
    assert find(shards).class_names == ["star", "Zelle, groß"]
    assert convert(shards, to="shards", out=tmp_path / "indexed").class_names == ["star", "Zelle, groß"]
    assert same(batches(tmp_path / "indexed"), batches(source))


def test_webdataset_reads_the_shards(shards):
    """With the library, where it is installed: each key has an image and its annotations."""
    webdataset = pytest.importorskip("webdataset")
    paths = [str(path) for path in sorted(shards.glob("train-*.tar"))]
    samples = list(webdataset.WebDataset(paths, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [f"{k:09d}" for k in range(COUNT)]
    assert [json.loads(sample["json"])["image"]["id"] for sample in samples] == [1000 - 7 * k for k in range(COUNT)]
    assert all(("png" if k % 3 == 0 else "jpg") in sample for k, sample in enumerate(samples))


def test_shards_that_webdataset_writes(tmp_path):
    """With the library, where it is installed: its writer's dates make longer headers, and long keys are cut there."""
    webdataset = pytest.importorskip("webdataset")
    photo = io.BytesIO()
    Image.new("RGB", (30, 20), (9, 90, 200)).save(photo, format="PNG")
    with webdataset.ShardWriter(str(tmp_path / "photos-%06d.tar"), maxcount=2, verbose=0) as writer:
        for number in range(5):
            key = f"cam/{'long' * 40 * (number % 2)}{number}"
            annotation = {"bbox": [1, 2, 3, 4], "category": "cell", "category_id": 6}
            content = {"image": {}, "annotations": [annotation] * number}
            writer.write({"__key__": key, "png": photo.getvalue(), "json": json.dumps(content).encode()})
    found = records(tmp_path)
    assert [len(record["annotations"]) for record in found] == [0, 1, 2, 3, 4]
    assert {(record["width"], record["height"]) for record in found} == {(30, 20)}
    annotations = find(tmp_path).splits["train"].annotations
    assert all(image_bytes(annotations, image) == photo.getvalue() for image in annotations.images)


def test_a_file_elsewhere_is_no_shard(tmp_path, source):
    """A tar file of images beside a COCO data set, as an archive that was unpacked, changes nothing."""
    with tarfile.open(source / "train2017.tar", "w") as tar:
        tar.add(source / "images/train/0.png", "train2017/0.png")
        tar.add(source / "images/train/3.png", "train2017/3.png")
    assert find(source).layout == "coco"


def test_the_index_names_the_data_set(shards):
    """As the COCO file of a folder does: `validate` opens its images as well."""
    assert list(find(shards / "shards_val.json").splits) == ["val"]
    assert main(["validate", str(shards / "shards_val.json")]) == 0


def test_a_cleaned_copy_finds_its_images_in_the_shards(shards, tmp_path):
    """`validate --fix` copies no image."""
    assert main(["validate", str(shards), "--fix", str(tmp_path / "clean")]) == 0
    annotations = find(tmp_path / "clean").splits["train"].annotations
    assert len({image_bytes(annotations, image) for image in annotations.images}) == COUNT


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20000])


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda root: (root / "train-000001.tar").unlink(), r"The shard .*train-000001\.tar, which .* does not exist"),
        (
            lambda root: cut(root / "train-000001.tar"),
            r"The shard .*train-000001\.tar has \d+ bytes, but \d+ in shards",
        ),
        (lambda root: rewrite(root / "shards_train.json", lambda x: x["shards"].clear()), "lists no shards"),
        (lambda root: rewrite(root / "shards_train.json", lambda x: x.pop("shards")), 'has no list "shards"'),
        (lambda root: rewrite(root / "shards_train.json", lambda x: x.update(url="shards/")), 'a "url" that is none'),
        (
            lambda root: rewrite(root / "shards_train.json", lambda x: x["shards"].append("a")),
            "has the shard 'a', which",
        ),
        (
            lambda root: rewrite(root / "shards_train.json", lambda x: x["shards"][0].update(file="../a.tar")),
            r"has the shard \{'file': '\.\./a\.tar'",
        ),
        (lambda root: rewrite(root / "shards_train.json", lambda x: x["images"][2].pop("offset")), "image 986 .* lies"),
        (
            lambda root: rewrite(root / "shards_train.json", lambda x: x["images"][2].update(size=-1)),
            "image 986 .* lies",
        ),
        (
            lambda root: rewrite(root / "shards_train.json", lambda x: x["images"][2].update(shard=99)),
            "image 986 in shard 99 of",
        ),
        (lambda root: (root / "shards_train.json").write_text("{"), "shards_train.json is not in COCO's format"),
    ],
)
def test_a_damaged_data_set_is_one_sentence_when_it_is_read(shards, damage, sentence):
    """Whatever is missing, no shard is opened for it."""
    damage(shards)
    with pytest.raises(DatasetError, match=sentence) as error:
        _ = find(shards).splits["train"].annotations
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["gone", "other", "shifted", "bytes"])
def test_a_shard_that_is_damaged_later_is_one_sentence(shards, damage):
    """Gone, with another file at the image's place, cut off, and with bytes that are no image: named with the key."""
    with forgotten("of_shards_train", "of_shards_val"):
        find(shards).register("of_shards")
        loader = build_test_loader(
            dataset="of_shards_train", mapper=DetrMapper(augmentations=[], is_train=False), num_workers=0
        )
    path = shards / "train-000000.tar"
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        changed = {"other": content.replace(b"000000000.png", b"000000009.png"), "shifted": content[:1000]}
        path.write_bytes(changed.get(damage, content.replace(b"PNG", b"GNP")))
    expected = {
        "gone": "does not exist",
        "bytes": r"000000000\.png@512\+\d+/0\.png .* cannot be read .*no image format",
    }
    sentence = expected.get(damage, r"has no 000000000\.png of \d+ bytes at byte 512, where its index has it")
    with pytest.raises(DatasetError, match=rf"train-000000\.tar.*{sentence}") as error:
        list(loader)
    assert "\n" not in str(error.value)


GOOD = b'{"image": {"width": 9, "height": 9}, "annotations": []}'


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ({"a__jpg": b"x", "a__json": GOOD, "b__json": GOOD}, "train-0.tar has no image of the key b"),
        ({"a__jpg": b"x", "a__json": GOOD, "b__jpg": b"x"}, "train-0.tar has no KEY.json of the key b"),
        ({"a__jpg": b"x", "a__json": GOOD, "a__png": b"x"}, "train-0.tar has 2 image of the key a"),
        ({"a__jpg": b"x", "a__json": b"{"}, r"a\.json of the shard .*train-0\.tar is no JSON"),
        ({"a__jpg": b"x", "a__json": b"\xff"}, r"a\.json of the shard .*train-0\.tar is no JSON"),
        ({"a__jpg": b"x", "a__json": b"[]"}, r"a\.json of the shard .*train-0\.tar has another form"),
        (
            {"a__jpg": b"x", "a__json": GOOD.replace(b"[]", b'[{"category": "c", "category_id": [1]}]')},
            r"has the category_id \[1\]: write a number",
        ),
        ({"a__jpg": b"x", "a__json": GOOD.replace(b"[]", b"[{}]")}, 'has an object without the name of its "category"'),
    ],
)
def test_shards_without_index_that_are_of_another_form(tmp_path, members, sentence):
    """Shard and key are named."""
    tar_of(tmp_path / "train-0.tar", **members)
    with pytest.raises(DatasetError, match=sentence):
        _ = find(tmp_path).splits["train"].annotations


def test_shards_without_index_that_are_cut_off(tmp_path):
    """A download that ended early is refused, not read as far as it goes."""
    tar_of(tmp_path / "train-0.tar", a__jpg=b"x" * 2000, a__json=GOOD, b__jpg=b"x" * 2000, b__json=GOOD)
    content = (tmp_path / "train-0.tar").read_bytes()
    for size, reason in ((4500, "unexpected end of data"), (7 * 512, "it does not end as one")):
        (tmp_path / "train-0.tar").write_bytes(content[:size])
        with pytest.raises(DatasetError, match=rf"train-0\.tar is no whole tar file \({reason}\)"):
            _ = find(tmp_path).splits["train"].annotations


def test_numbers_of_classes_that_contradict(tmp_path):
    """Two names of one category_id, and two ids of one name, cannot be put in order."""
    for objects, told in (
        ([("a", 1), ("b", 1)], "category_id 1 with a and b"),
        ([("a", 1), ("a", 2)], "category 'a' with 1 and 2"),
    ):
        annotations = [{"bbox": [1, 1, 2, 2], "category": name, "category_id": number} for name, number in objects]
        content = json.dumps({"image": {"width": 9, "height": 9}, "annotations": annotations}).encode()
        tar_of(tmp_path / "train-0.tar", a__jpg=b"x", a__json=content)
        with pytest.raises(DatasetError, match=told):
            _ = find(tmp_path).splits["train"].annotations
    (tmp_path / "classes.txt").write_text("b\n")
    with pytest.raises(DatasetError, match="object 1 of a in .*train-0.tar has the class 'a', which classes.txt does"):
        _ = find(tmp_path).splits["train"].annotations


def test_options_that_cannot_be_used(source, tmp_path):
    """They are refused before a file is written."""
    with pytest.raises(DatasetError, match="cannot be full at 0 megabytes"):
        convert(source, to="shards", out=tmp_path / "x", shard_megabytes=0)
    with pytest.raises(DatasetError, match="'bucket/folder' is no URL of shards"):
        convert(source, to="shards", out=tmp_path / "x", shard_url="bucket/folder")
    assert not (tmp_path / "x").exists()


@pytest.fixture
def remote(source, tmp_path):
    """Return shards whose tar files lie in fsspec's file system in memory, and that system."""
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    folder = tmp_path / "remote"
    convert(source, to="shards", out=folder, shard_megabytes=SMALL, shard_url="memory://bucket/cells/")
    for path in folder.glob("*.tar"):
        memory.pipe_file(f"/bucket/cells/{path.name}", path.read_bytes())
        path.unlink()
    yield folder, memory
    memory.rm("/bucket", recursive=True)


def test_shards_at_a_url_are_read_image_by_image(source, remote):
    """The index alone is here; the batches are those of the folder."""
    folder, memory = remote
    assert [path.suffix for path in folder.iterdir()] == [".json"] * 2
    assert same(batches(folder), batches(source))
    memory.rm("/bucket/cells/train-000000.tar")
    with pytest.raises(DatasetError, match=r"memory://bucket/cells/train-000000\.tar with 0000.* does not exist"):
        batches(folder)


def test_a_network_that_fails_for_a_moment_is_asked_again(source, remote, monkeypatch):
    """Four failures of each image are passed over; the fifth is one sentence."""
    folder, memory = remote
    monkeypatch.setattr("align_detr.data.shard_images._WAIT", 0)
    read, calls = type(memory).cat_file, []

    def fail(self, path, start=None, end=None, **kwargs):
        calls.append(path)
        if len(calls) % 5:
            raise RuntimeError("503")
        return read(self, path, start=start, end=end, **kwargs)

    monkeypatch.setattr(type(memory), "cat_file", fail)
    assert same(batches(folder, count=2), batches(source, count=2))
    assert len(calls) == 20
    monkeypatch.setattr(type(memory), "cat_file", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(DatasetError, match=r"of the shard memory://.* cannot be read \(ZeroDivisionError: division"):
        batches(folder)


def test_a_server_that_knows_no_ranges(remote, monkeypatch):
    """It sends the whole shard for an image."""
    folder, memory = remote
    read = type(memory).cat_file
    monkeypatch.setattr(type(memory), "cat_file", lambda self, path, **kwargs: read(self, path))
    with pytest.raises(DatasetError, match=r"has sent \d+ bytes in place of \d+: use one that serves ranges"):
        batches(folder)


def test_a_protocol_without_its_package(remote):
    """What to install is said."""
    folder, _ = remote
    for protocol in ("nonsense", "s3"):
        rewrite(folder / "shards_train.json", lambda content, p=protocol: content.update(url=f"{p}://bucket"))
        with pytest.raises(DatasetError, match=rf"{protocol}://bucket/.* cannot be opened .*pip install align_detr"):
            batches(folder)


def test_an_index_holds_what_a_reader_of_records_needs(tmp_path):
    """`write` takes annotations of any source: here with classes counted from 0 and ids that are text."""
    trees.write_images(tmp_path / "images", "a")
    objects = [{"id": 1, "image_id": "x", "category_id": 0, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0}]
    images = [{"id": "x", "file_name": "a.jpg", "width": 200, "height": 150}]
    given = Annotations(images, objects, [{"id": 0, "name": "cell"}], tmp_path / "images", tmp_path)
    shards_writer.write({"train": given}, tmp_path / "out")
    with forgotten("given", "written"):
        register("given", given)
        register("written", find(tmp_path / "out").splits["train"].read)
        (one,), (other,) = load_dataset("given"), load_dataset("written")
    assert {**one, "file_name": ""} == {**other, "file_name": ""}
