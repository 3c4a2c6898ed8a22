"""One locked file through the real pip, from a local folder instead of an index."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from tiny_series import QUIET

from turbotool.errors import HashMismatch, SourceError
from turbotool.upstream.pypi import fetch_pypi, learn_sha256, submodule_commit, submodule_date

pytestmark = pytest.mark.slow  # pip itself takes a second or more a call
SDIST = "tinypkg-1.0.tar.gz"
METADATA = "Metadata-Version: 2.1\nName: tinypkg\nVersion: 1.0\n"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a source distribution whose backend would leave a trace if it ran, and a wheel."""
    folder = tmp_path / "index"
    folder.mkdir()
    backend = f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
    project = '[build-system]\nrequires = []\nbuild-backend = "scikit_build_core.build"\nbackend-path = ["."]\n'
    project += '[project]\nname = "tinypkg"\nversion = "1.0"\n'
    files = {"pyproject.toml": project.replace('backend-path = ["."]\n', ""), "setup.py": backend, "PKG-INFO": METADATA}
    with tarfile.open(folder / SDIST, "w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(f"tinypkg-1.0/{name}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    with zipfile.ZipFile(folder / "tinypkg-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tinypkg/model.gguf", "GGUF")
        wheel.writestr("tinypkg-1.0.dist-info/METADATA", METADATA)
        wheel.writestr("tinypkg-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tinypkg-1.0.dist-info/RECORD", "")
    (tmp_path / "constraints.txt").write_text("tinypkg==0.1\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", folder.as_uri())
    monkeypatch.setenv("PIP_CONSTRAINT", str(tmp_path / "constraints.txt"))
    return folder


def fetch(index: Path, name: str, into: Path) -> Path:
    data = (index / name).read_bytes()
    return fetch_pypi("tinypkg", "1.0", name, hashlib.sha256(data).hexdigest(), len(data), into, QUIET)


@pytest.mark.parametrize("name", [SDIST, "tinypkg-1.0-py3-none-any.whl"])
def test_a_file_is_downloaded_once_and_nothing_of_it_runs(index: Path, tmp_path: Path, name: str) -> None:
    path = fetch(index, name, tmp_path / "cache")
    assert path.read_bytes() == (index / name).read_bytes()
    assert not (tmp_path / "ran").exists()
    first = path.stat().st_mtime_ns
    assert fetch(index, name, tmp_path / "cache").stat().st_mtime_ns == first
    path.write_bytes(b"damaged")
    assert fetch(index, name, tmp_path / "cache").read_bytes() == (index / name).read_bytes()


def test_another_file_than_the_locked_one_is_a_mismatch_with_both_values(index: Path, tmp_path: Path) -> None:
    got = hashlib.sha256((index / SDIST).read_bytes()).hexdigest()
    with pytest.raises(HashMismatch) as caught:
        fetch_pypi("tinypkg", "1.0", SDIST, "0" * 64, 10, tmp_path / "cache", QUIET)
    assert "0" * 64 in caught.value.message
    assert got in caught.value.message
    assert not (tmp_path / "cache" / SDIST).exists()
    assert not (tmp_path / "ran").exists()


def test_a_missing_release_is_a_source_error_with_pips_words_and_a_log(index: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file") as caught:
        fetch_pypi("tinypkg", "9.9", "tinypkg-9.9.tar.gz", "0" * 64, 10, tmp_path / "cache", QUIET)
    assert "No matching distribution" in caught.value.message
    assert "pip download" in (tmp_path / "cache/tinypkg-9.9.tar.gz.log").read_text()


def test_the_hash_of_an_unlocked_release_is_learned_and_nothing_of_it_runs(index: Path, tmp_path: Path) -> None:
    got = learn_sha256("tinypkg", "1.0", SDIST, tmp_path / "cache", QUIET)
    assert got == hashlib.sha256((index / SDIST).read_bytes()).hexdigest()
    assert not (tmp_path / "ran").exists()
    with pytest.raises(SourceError, match="no such file"):
        learn_sha256("tinypkg", "9.9", "tinypkg-9.9.tar.gz", tmp_path / "cache", QUIET)


CLONE, CHECKOUT = f"{'0' * 40} {'a' * 40} a <b> 1790000000", f"{'a' * 40} {'b' * 40} a <b> 1790833449"
REFLOG = f"{CLONE} +0000\tclone: x\n{CHECKOUT} +0000\tcheckout: y\n"


def packed(folder: Path, name: str, text: str) -> Path:
    """An archive with this one file."""
    path = folder / "t.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text.encode()))
    return path


@pytest.mark.parametrize(
    ("text", "found"), [(REFLOG, "2026-10-01"), (REFLOG.replace("1790833449", "9" * 30), "2026-09-21"), ("no log", "")]
)
def test_the_day_of_a_release_is_the_one_of_its_last_checkout(tmp_path: Path, text: str, found: str) -> None:
    path = packed(tmp_path, "p-1/.git/modules/vendor/x/logs/HEAD", text)
    assert submodule_date(path, "p-1/vendor/x") == found


@pytest.mark.parametrize(("text", "found"), [("a" * 40 + "\n", "a" * 40), ("ref: refs/heads/main\n", "")])
def test_the_commit_of_a_submodule_is_read_from_gits_own_record(tmp_path: Path, text: str, found: str) -> None:
    path = packed(tmp_path, "p-1/.git/modules/vendor/x/HEAD", text)
    assert submodule_commit(path, "p-1/vendor/x") == found
    assert submodule_commit(path, "p-1/vendor/y") == ""
