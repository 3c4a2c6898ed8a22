"""What more than one folder of tests starts from."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Done, apart, private
from eval_site import KV, make_eval_folder
from tiny_series import Project, copy_project, make_project

from turbotool.errors import BinaryFailed
from turbotool.series.apply import ensure_applied
from turbotool.series.export import export


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both kinds of project, made once and copied for each test."""
    folder = tmp_path_factory.mktemp("templates")
    make_project(folder / "project")
    project = make_project(folder / "patched")
    ensure_applied(project.session)
    (project.layout.tree / "src/turbo").mkdir()
    (project.layout.tree / "src/turbo/codec.c").write_text("int codec;\n")
    project.edit("src/core.cpp", "line 10\n", "line 10\nturbo 10\n")
    project.commit("Register the turbo cache types")
    project.edit("src/core.cpp", "line 30\n", "turbo 30\n")
    project.edit("src/dos.h", "two\r\n", "TWO\r\n")
    project.commit("Rotate what is stored, in K and V")
    export(project.session)
    return folder


@pytest.fixture
def hears_hangups() -> Iterator[None]:
    """A closed terminal is heard here and by the programs that a test starts, where `nohup` has it ignored, too."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def project(templates: Path, tmp_path: Path) -> Project:
    return copy_project(templates / "project", tmp_path / "a folder")


@pytest.fixture
def patched(templates: Path, tmp_path: Path) -> Project:
    """The project with two patches and an overlay file, exported and applied."""
    return copy_project(templates / "patched", tmp_path / "a folder")


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """The report of an evaluation with a cell that crashed and one that is not finite; it takes some seconds."""
    folder = tmp_path_factory.mktemp("site")
    named = make_eval_folder(folder, trouble={"q8_0/q8_0/v": "SIGSEGV", "turbo4/turbo4/v": "nan"})
    words = [*named, "--kv", "q8_0,q8_0/turbo4,turbo4", *KV[2:], "--report", folder / "report", "--json"]
    done = apart("eval", *words, variables=private(folder))
    assert done.code == BinaryFailed.exit_code
    return folder / "report", done
