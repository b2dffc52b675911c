"""The pinned source archive of detectron2 v0.5 as a pure-Python wheel, with the standard library alone."""

import base64
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

from align_detr.errors import EnvironmentProblem
from align_detr.repack.edits import EDITS, EXTENSION_PATH, NOTICE, Edit, apply_edits, extension_source

ARCHIVE_REQUIREMENT = "detectron2-cdo==0.5"
ARCHIVE_SHA256 = "53c9e79e9cc943e80419c588ea44b5479507a8628ed14a4e06bd093e29311b18"
WHEEL_NAME = "detectron2-0.5-py3-none-any.whl"
DIST_INFO = "detectron2-0.5.dist-info"

# Projects that detectron2's own setup installs: folder in the archive -> folder in the wheel.
BUNDLED_PROJECTS = {
    "projects/PointRend/point_rend": "detectron2/projects/point_rend",
    "projects/DeepLab/deeplab": "detectron2/projects/deeplab",
    "projects/Panoptic-DeepLab/panoptic_deeplab": "detectron2/projects/panoptic_deeplab",
}

METADATA = """\
Metadata-Version: 2.1
Name: detectron2
Version: 0.5
Summary: Detectron2 v0.5, repacked without its compiled extension.
Author: FAIR
License: Apache-2.0
Requires-Python: >=3.7
Requires-Dist: Pillow>=7.1
Requires-Dist: matplotlib
Requires-Dist: pycocotools>=2.0.2
Requires-Dist: termcolor>=1.1
Requires-Dist: yacs>=0.1.6
Requires-Dist: tabulate
Requires-Dist: cloudpickle
Requires-Dist: tqdm>4.29.0
Requires-Dist: tensorboard
Requires-Dist: fvcore<0.1.6,>=0.1.5
Requires-Dist: iopath<0.1.10,>=0.1.7
Requires-Dist: omegaconf>=2.1
Requires-Dist: hydra-core>=1.1
"""

WHEEL_METADATA = """\
Wheel-Version: 1.0
Generator: align-detr
Root-Is-Purelib: true
Tag: py3-none-any
"""


def check_archive(archive: bytes, expected: str = ARCHIVE_SHA256) -> None:
    """Raise EnvironmentProblem unless the SHA-256 of `archive` is the pinned one."""
    found = hashlib.sha256(archive).hexdigest()
    if found != expected:
        raise EnvironmentProblem(
            f"The detectron2 archive has SHA-256 {found} instead of {expected}: it is incomplete or not the "
            "pinned one; delete it and fetch it again."
        )


def wheel_files(archive: bytes) -> dict[str, bytes]:
    """Read a gzipped source archive into {path in the wheel: content}: package, configs, bundled projects, LICENSE."""
    files: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() else None
            path = "/".join(PurePosixPath(member.name).parts[1:])  # without the archive's top folder
            target = _path_in_wheel(path)
            if content is not None and target:
                files[target] = content.read()
    return files


def _path_in_wheel(path: str) -> str:
    if path.startswith("detectron2/"):
        return path
    if path == "LICENSE":
        return f"{DIST_INFO}/LICENSE"
    for source, target in BUNDLED_PROJECTS.items():
        if path.startswith(source + "/"):
            return target + path[len(source) :]
    return ""


def repack_notice(edits: tuple[Edit, ...] = EDITS) -> str:
    """Return what the wheel says of itself: a digest of all that we change, then the changed files.

    An installed wheel of ours is renewed when its digest is no longer this one.
    """
    changes = "\0".join([METADATA, WHEEL_METADATA, NOTICE, extension_source(), *map(repr, edits)])
    digest = hashlib.sha256(changes.encode("utf-8")).hexdigest()
    changed = sorted({edit.path for edit in edits} | {EXTENSION_PATH})
    return f"align-detr edits {digest}\nThese files differ from detectron2 v0.5:\n" + "\n".join(changed) + "\n"


def build_wheel(archive: bytes, edits: tuple[Edit, ...] = EDITS) -> bytes:
    """Return the wheel of a gzipped source archive: the same bytes for the same archive and edits.

    Raise EnvironmentProblem when an edit does not fit the archive.
    """
    files = apply_edits(wheel_files(archive), edits)
    files[EXTENSION_PATH] = extension_source().encode("utf-8")
    files[f"{DIST_INFO}/METADATA"] = METADATA.encode("utf-8")
    files[f"{DIST_INFO}/WHEEL"] = WHEEL_METADATA.encode("utf-8")
    files[f"{DIST_INFO}/REPACKED"] = repack_notice(edits).encode("utf-8")
    files[f"{DIST_INFO}/top_level.txt"] = b"detectron2\n"
    files[f"{DIST_INFO}/RECORD"] = _record(files).encode("utf-8")

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as wheel:
        # the specification recommends .dist-info last; a fixed date and mode make the bytes reproducible
        for path in sorted(files, key=lambda path: (path.startswith(DIST_INFO), path)):
            entry = zipfile.ZipInfo(path, date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, whatever the machine
            entry.external_attr = 0o100644 << 16
            wheel.writestr(entry, files[path])
    return buffer.getvalue()


def _record(files: dict[str, bytes]) -> str:
    lines = []
    for path in sorted(files):
        digest = base64.urlsafe_b64encode(hashlib.sha256(files[path]).digest()).rstrip(b"=").decode("ascii")
        lines.append(f"{path},sha256={digest},{len(files[path])}\n")
    return "".join(lines) + f"{DIST_INFO}/RECORD,,\n"


def write_wheel(archive: bytes, folder: Path) -> Path:
    """Write the wheel of the pinned `archive` into `folder` (made if absent) and return its path."""
    check_archive(archive)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / WHEEL_NAME
    path.write_bytes(build_wheel(archive))
    return path
