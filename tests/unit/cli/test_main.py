"""How the command line ends where the system refuses something: one line, a code, and with --json a document."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import private, typed, variables_of
from tiny_series import Project

from turbotool import __version__
from turbotool.errors import Interrupted, ModelError, NoSpace, UnexpectedFailure
from turbotool.upstream.lock import read_lock, write_upstream

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no device that is always full")


@pytest.fixture
def unusable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file where the work folder should be."""
    for name, value in private(tmp_path).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "work").write_text("no folder")
    return tmp_path / "work"


def test_a_folder_that_cannot_be_used_is_told_in_one_line_and_in_the_document(
    unusable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = typed(["patch", "check", "--json"], capsys)
    assert done.code == done.document["error"]["code"] == UnexpectedFailure.exit_code == 1
    assert str(unusable) in done.document["error"]["message"]
    assert "TURBOTOOL_WORK" in done.document["error"]["hint"]
    assert [line.split(":")[0].strip() for line in done.stderr.splitlines()] == ["error", "try"]


def test_a_traceback_is_for_those_who_ask_for_it(unusable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Traceback" not in typed(["patch", "check"], capsys).stderr
    assert "Traceback" in typed(["patch", "check", "-v"], capsys).stderr


def test_an_interrupt_before_the_command_began_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("turbotool.cli.lazy.importlib.import_module", interrupt)
    done = typed(["patch", "list", "--json"], capsys)
    assert done.code == done.document["error"]["code"] == Interrupted.exit_code
    assert "error: interrupted" in done.stderr


def test_a_slip_of_ours_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def slip(*_: object) -> None:
        raise KeyError("a name\nand more")

    monkeypatch.setattr("turbotool.series.files.load", slip)
    done = typed(["patch", "list", "--json"], capsys)
    assert (done.code, done.document["error"]["class"]) == (1, "UnexpectedFailure")
    assert "unexpected KeyError" in done.document["error"]["message"]
    assert "-v" in done.document["error"]["hint"]
    assert len(done.stderr.splitlines()) == 2


def through(redirection: str, *words: str) -> subprocess.CompletedProcess[str]:
    """turbotool in a shell that redirects it so."""
    script = f'exec "$0" -m turbotool "$@" {redirection}'
    command = ["sh", "-c", script, sys.executable, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@needs_full
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], NoSpace.exit_code),
        (["patch", "list"], NoSpace.exit_code),
        (["patch", "list", "--json"], NoSpace.exit_code),
        (["plan", "nowhere.gguf", "--json"], ModelError.exit_code),
        (["patch", "nonsense", "--json"], NoSpace.exit_code),
    ],
)
def test_a_full_disk_under_stdout_is_an_error_of_one_line(words: list[str], code: int) -> None:
    done = through(f"> {FULL}", *words)
    assert (done.returncode, "Traceback" in done.stderr, "Exception" in done.stderr) == (code, False, False)
    assert done.stderr.count("error: ") == 1


@pytest.mark.skipif(os.name == "nt", reason="a shell closes the streams")
@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    ("words", "code"), [(["patch", "list", "--json"], 0), (["plan", "nowhere.gguf", "--json"], 23)]
)
def test_a_stream_that_is_closed_leads_nowhere(redirection: str, words: list[str], code: int) -> None:
    done = through(redirection, *words)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pipe that breaks")
@pytest.mark.parametrize("words", [["patch", "list", "--json"], ["patch", "nonsense", "--json"], ["--help"]])
def test_a_reader_who_leaves_gets_no_traceback(words: list[str]) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "turbotool", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout and child.stderr
        child.stdout.close()
        said = child.stderr.read()
        assert (child.wait(timeout=60), "Traceback" in said, "Exception" in said) == (1, False, False)


def test_the_version_names_the_pinned_upstream_as_it_is_known(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in variables_of(project.layout).items():
        monkeypatch.setenv(name, value)
    locked = read_lock(project.layout).upstream
    for upstream, known in (
        (locked, locked.commit[:9]),
        (replace(locked, tag="b7", commit=""), "b7"),
        (replace(locked, commit=""), locked.tree[:9]),
    ):
        write_upstream(project.layout, upstream)
        assert typed(["--version"], capsys).stdout == f"turbotool, version {__version__} (llama.cpp {known})\n"
    project.layout.lock_file.write_text("damaged")
    done = typed(["--version"], capsys)
    assert (done.code, done.stdout) == (0, f"turbotool, version {__version__}\n")
