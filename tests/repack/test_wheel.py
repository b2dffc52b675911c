"""The repacked detectron2: edits that refuse another archive, a reproducible wheel with a true RECORD."""

import base64
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from align_detr.cli import install_detectron2
from align_detr.errors import EnvironmentProblem
from align_detr.repack.edits import EDITS, Edit, apply_edits
from align_detr.repack.wheel import build_wheel, repack_notice, write_wheel

TOY_EDITS = (
    Edit("detectron2/a.py", "np.bool", "bool", 2),
    Edit("detectron2/projects/deeplab/b.py", "LINEAR", "BILINEAR"),
)
TOY_FILES = {
    "LICENSE": "licence",
    "setup.py": "raise SystemExit('not for the wheel')",
    "tools/train_net.py": "",
    "detectron2/__init__.py": "__version__ = '0.5'\n",
    "detectron2/a.py": "np.bool, np.bool\n",
    "detectron2/model_zoo/configs/common/x.yaml": "a: 1\n",
    "projects/DeepLab/deeplab/b.py": "LINEAR\n",
    "projects/DeepLab/train_net.py": "",
}


def make_archive(files: dict[str, str], mtime: int = 0) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"toy-0.5/{name}")
            entry.size, entry.mtime = len(text), mtime
            tar.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def real_archive() -> bytes:
    """The pinned archive, from the file that ALIGN_DETR_DETECTRON2_ARCHIVE names."""
    path = os.environ.get("ALIGN_DETR_DETECTRON2_ARCHIVE", "")
    if not Path(path).is_file():
        pytest.skip("no detectron2 source archive (name one in ALIGN_DETR_DETECTRON2_ARCHIVE)")
    return Path(path).read_bytes()


def test_edits_replace_and_mark_each_edited_file() -> None:
    edited = apply_edits({"detectron2/a.py": b"np.bool, np.bool\n", "other.py": b"np.bool\n"}, TOY_EDITS[:1])
    assert edited["detectron2/a.py"].startswith(b"bool, bool\n\n# Modified")
    assert edited["other.py"] == b"np.bool\n"


@pytest.mark.parametrize(("content", "times"), [(b"np.bool\n", "1 times instead of 2"), (b"np.bool\n" * 3, "3 times")])
def test_edits_refuse_another_count(content: bytes, times: str) -> None:
    with pytest.raises(EnvironmentProblem, match=rf"detectron2/a\.py .*'np\.bool' occurs {times}"):
        apply_edits({"detectron2/a.py": content}, TOY_EDITS[:1])


def test_edits_refuse_a_missing_file() -> None:
    with pytest.raises(EnvironmentProblem, match=r"no file detectron2/a\.py"):
        apply_edits({}, TOY_EDITS[:1])


def test_wheel_holds_package_configs_and_bundled_projects_only() -> None:
    wheel = zipfile.ZipFile(io.BytesIO(build_wheel(make_archive(TOY_FILES), TOY_EDITS)))
    info = "detectron2-0.5.dist-info"
    assert set(wheel.namelist()) == {
        "detectron2/__init__.py",
        "detectron2/_C.py",
        "detectron2/a.py",
        "detectron2/model_zoo/configs/common/x.yaml",
        "detectron2/projects/deeplab/b.py",
        *(f"{info}/{name}" for name in ("LICENSE", "METADATA", "RECORD", "REPACKED", "WHEEL", "top_level.txt")),
    }
    assert wheel.read("detectron2/projects/deeplab/b.py").startswith(b"BILINEAR\n")


def check_record(wheel: zipfile.ZipFile) -> None:
    """Every file of `wheel` is in RECORD with its size and digest, once."""
    rows = [row.rsplit(",", 2) for row in wheel.read("detectron2-0.5.dist-info/RECORD").decode().splitlines()]
    assert sorted(row[0] for row in rows) == sorted(wheel.namelist())
    for name, digest, size in rows:
        if name.endswith("/RECORD"):
            assert (digest, size) == ("", "")
            continue
        content = wheel.read(name)
        expected = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        assert (digest, int(size)) == (f"sha256={expected}", len(content)), name


def test_record_is_true() -> None:
    check_record(zipfile.ZipFile(io.BytesIO(build_wheel(make_archive(TOY_FILES), TOY_EDITS))))


def test_wheel_does_not_depend_on_order_or_dates() -> None:
    reverse = dict(reversed(TOY_FILES.items()))
    first = build_wheel(make_archive(TOY_FILES), TOY_EDITS)
    assert build_wheel(make_archive(reverse, mtime=1_700_000_000), TOY_EDITS) == first


def test_digest_changes_with_an_edit() -> None:
    changed = (TOY_EDITS[0], Edit("detectron2/projects/deeplab/b.py", "LINEAR", "NEAREST"))
    assert repack_notice(TOY_EDITS) != repack_notice(changed)
    assert repack_notice(TOY_EDITS) == repack_notice(tuple(TOY_EDITS))


def test_another_archive_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="SHA-256"):
        write_wheel(make_archive(TOY_FILES), tmp_path / "wheels")
    assert not (tmp_path / "wheels").exists()


def test_real_archive_gives_a_reproducible_wheel_that_compiles(tmp_path: Path) -> None:
    archive = real_archive()
    first = write_wheel(archive, tmp_path / "a")
    assert first.name == "detectron2-0.5-py3-none-any.whl"
    assert write_wheel(archive, tmp_path / "b").read_bytes() == first.read_bytes()
    wheel = zipfile.ZipFile(first)
    check_record(wheel)
    for edit in EDITS:
        compile(wheel.read(edit.path), edit.path, "exec")
    assert "detectron2/model_zoo/configs/COCO-Detection/retinanet_R_50_FPN_1x.py" in wheel.namelist()
    assert "detectron2/projects/point_rend/__init__.py" in wheel.namelist()


def test_installer_is_a_plain_script_that_imports_neither_torch_nor_detectron2(tmp_path: Path) -> None:
    script = Path(install_detectron2.__file__)
    watch = (
        "import runpy, sys; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_path({str(script)!r}, run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'detectron2', 'unearth'} & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", watch], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "--wheel-dir" in result.stdout
    missing = [sys.executable, str(script), "--wheel-dir", str(tmp_path), "--archive", str(tmp_path / "no.tar.gz")]
    result = subprocess.run(missing, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.strip().startswith("install-detectron2: The archive") and "Traceback" not in result.stderr
