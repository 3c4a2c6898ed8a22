"""An environment: where it may be made, and how the bindings are installed in it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from turbotool.bindings import environment
from turbotool.bindings.environment import Environment
from turbotool.bindings.releases import FITTING
from turbotool.errors import SourceError, ToolFailed, ToolMissing, UsageMistake
from turbotool.layout import Layout
from turbotool.system.output import Output
from turbotool.system.session import Session

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake Python is a script")


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(Layout(tmp_path, tmp_path / "work", tmp_path / "cache"), Output(quiet=True))


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def with_python(folder: Path, script: str) -> Environment:
    """An environment whose Python is a script."""
    program(folder / "bin" / "python", script)
    return Environment(folder, folder / "packages", "3.12.0", "")


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The archive that the locked release is downloaded to."""
    path = tmp_path / "cache" / "downloads" / FITTING.archive
    asked = ("llama-cpp-python", FITTING.version, FITTING.archive, FITTING.sha256, FITTING.size, path.parent)

    def fetch(*words: object, out: Output) -> Path:
        assert words == asked
        return path

    monkeypatch.setattr(environment, "fetch_pypi", fetch)
    return path


def test_the_locked_archive_is_installed_without_libraries(session: Session, archive: Path, tmp_path: Path) -> None:
    told = tmp_path / "told"
    found = with_python(tmp_path / "env", f'echo "$CMAKE_ARGS" "$@" > {told}')
    environment.install(session, found, FITTING)
    assert told.read_text().split() == [
        "-DLLAMA_BUILD=OFF",
        *("-m", "pip", "install", "--no-input", "--disable-pip-version-check"),
        str(archive),
    ]


def test_what_pip_says_is_told(session: Session, archive: Path, tmp_path: Path) -> None:
    found = with_python(tmp_path / "env", "echo no compiler here; exit 1")
    with pytest.raises(SourceError, match="no compiler here") as caught:
        environment.install(session, found, FITTING)
    assert str(environment.log_file(session)) in str(caught.value.hint)
    assert "no compiler here" in environment.log_file(session).read_text()


def test_a_python_without_venv_is_told(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(program(tmp_path / "python", "echo ensurepip is not available; exit 1")))
    with pytest.raises(ToolMissing, match="ensurepip is not available") as caught:
        environment.make(session, tmp_path / "env")
    assert "python3-venv" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("script", "told"), [("echo first; echo 'ImportError: it'; exit 1", "ImportError: it"), ("", "prints nothing")]
)
def test_a_python_that_does_not_answer_is_told_in_one_line(tmp_path: Path, script: str, told: str) -> None:
    with_python(tmp_path / "env", script)
    with pytest.raises(ToolFailed) as caught:
        environment.look(tmp_path / "env")
    assert caught.value.message.endswith(told)
    assert "\n" not in caught.value.message


def test_an_environment_goes_where_nothing_is_or_another_one(tmp_path: Path) -> None:
    environment.require_place(tmp_path / "new")
    environment.require_place(tmp_path)
    (tmp_path / "pyvenv.cfg").touch()
    (tmp_path / "mine.txt").touch()
    environment.require_place(tmp_path)
    (tmp_path / "pyvenv.cfg").unlink()
    for place in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(UsageMistake):
            environment.require_place(place)
