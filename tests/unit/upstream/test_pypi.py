"""One locked file through the real pip, from a local folder instead of an index."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_series import QUIET

from turbotool.errors import HashMismatch, SourceError
from turbotool.upstream import pypi
from turbotool.upstream.lock import Upstream
from turbotool.upstream.pypi import fetch_pypi, learn_release, learn_sha256, submodule_commit, submodule_date

pytestmark = pytest.mark.slow  # pip itself takes a second or more a call
SDIST = "tinypkg-1.0.tar.gz"
METADATA = "Metadata-Version: 2.1\nName: tinypkg\nVersion: 1.0\n"


# What an archive may say about its build: a backend, one that it holds itself, or nothing, which is setup.py.
BACKENDS = {
    "scikit-build": 'requires = ["no-such-thing"]\nbuild-backend = "scikit_build_core.build"\n',
    "setuptools": 'requires = ["no-such-thing"]\nbuild-backend = "setuptools.build_meta"\n',
    "an object": 'requires = []\nbuild-backend = "setuptools.build_meta:__legacy__"\n',
    "its own": 'requires = []\nbuild-backend = "trace"\nbackend-path = ["."]\n',
    "none named": "",
}


@pytest.fixture(params=["scikit-build"])
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A folder with a source distribution whose backend would leave a trace if it ran, and a wheel."""
    folder = tmp_path / "index"
    folder.mkdir()
    backend = f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
    files = {"setup.py": backend, "trace.py": backend, "PKG-INFO": METADATA}
    if build := BACKENDS[request.param]:
        files["pyproject.toml"] = f'[build-system]\n{build}[project]\nname = "tinypkg"\nversion = "1.0"\n'
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


@pytest.mark.parametrize("index", BACKENDS, indirect=True)
def test_whichever_backend_an_archive_names_neither_it_nor_its_requirements_are_asked(
    index: Path, tmp_path: Path
) -> None:
    assert fetch(index, SDIST, tmp_path / "cache").read_bytes() == (index / SDIST).read_bytes()
    assert not (tmp_path / "ran").exists()
    log = (tmp_path / f"cache/{SDIST}.log").read_text()
    assert log.count("pip download") == 1  # the quick way did it
    assert "no-such-thing" not in log


def test_what_an_environment_customises_itself_is_not_lost(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "sitecustomize.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'mine ran')!r}).touch()\n")
    monkeypatch.setenv("PYTHONPATH", str(mine))
    fetch(index, SDIST, tmp_path / "cache")
    assert (tmp_path / "mine ran").exists()
    log = (tmp_path / f"cache/{SDIST}.log").read_text()
    assert log.count("pip download") == 1
    assert "Error in sitecustomize" not in log


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


TINY = Upstream("pypi", "", package="tinypkg", version="1.0", archive=SDIST, subdir="tinypkg-1.0/vendor/x")


def test_a_release_that_records_neither_commit_nor_day_is_learned_without_either(index: Path, tmp_path: Path) -> None:
    found = learn_release(TINY, tmp_path / "cache", QUIET)
    data = (index / SDIST).read_bytes()
    assert found == replace(TINY, sha256=hashlib.sha256(data).hexdigest(), size=len(data))


def test_the_day_of_a_package_that_keeps_times_is_that_of_its_newest_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, time in (("x-1/thirdparty/llama.cpp/a", 1791590000), ("x-1/thirdparty/llama.cpp/b", 1791600000)):
            info = tarfile.TarInfo(name)
            info.mtime = time
            tar.addfile(info)
        late = tarfile.TarInfo("x-1/thirdparty/other")
        late.mtime = 1891600000
        tar.addfile(late)
    monkeypatch.setattr(pypi, "learn_sha256", lambda *_: "0" * 64)
    monkeypatch.setattr(pypi, "fetch_pypi", lambda *_: path)
    wanted = Upstream("pypi", "", package="xllamacpp", archive=path.name, subdir="x-1/thirdparty/llama.cpp")
    assert learn_release(wanted, tmp_path, QUIET).date == "2026-10-10"
    assert learn_release(replace(wanted, package="other"), tmp_path, QUIET).date == ""


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
