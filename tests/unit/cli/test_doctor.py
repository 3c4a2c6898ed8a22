"""`turbotool doctor` as it is typed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Done, private, typed
from fake_tools import fake_site

from turbotool.errors import ToolMissing

Doctor = Callable[..., Done]


@pytest.fixture
def doctor(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """The command on a machine whose tools are those in one folder."""
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "TURBOTOOL_ROOT"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("TURBOTOOL_WORK", str(tmp_path / "work"))

    def run(*words: str, tools: str = "nowhere") -> Done:
        monkeypatch.setenv("PATH", str(tmp_path / tools))
        return typed(["doctor", *words], capsys)

    return run


def test_machine_with_nothing_installed_is_told_what_lacks(doctor: Doctor) -> None:
    done = doctor()
    assert done.code == ToolMissing.exit_code
    assert "no usable C compiler" in done.stdout
    assert "Traceback" not in done.stderr


def test_json_is_the_only_thing_that_is_printed(doctor: Doctor) -> None:
    done = doctor("--json")
    assert done.document["ok"] is False
    assert done.document["packages"]["click"]
    error = done.document["error"]
    assert done.code == error["code"] == ToolMissing.exit_code
    assert error["message"].startswith("the cpu backend cannot be built here: no usable C compiler")
    assert error["hint"]
    assert done.stderr == f"error: {error['message']}\n  try: {error['hint']}\n"


def test_a_quiet_doctor_says_why_it_fails(doctor: Doctor) -> None:
    done = doctor("--quiet")
    assert (done.code, done.stdout) == (ToolMissing.exit_code, "")
    assert done.stderr.startswith("error: the cpu backend cannot be built here: ")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudoterminals")
def test_what_goes_to_a_file_has_no_colours_while_progress_is_on_a_terminal(tmp_path: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    try:
        command = [sys.executable, "-m", "turbotool", "doctor"]
        env = {**os.environ, **private(tmp_path), "TERM": "xterm-256color"}
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, env=env, timeout=60, check=False)
    finally:
        os.close(ours)
        os.close(theirs)
    assert b"backend" in done.stdout
    assert b"\x1b" not in done.stdout


def test_working_machine_ends_with_zero(doctor: Doctor, tmp_path: Path) -> None:
    fake_site(tmp_path)
    assert doctor("--quiet", tools="tools").code == 0
