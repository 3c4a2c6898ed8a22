"""`turbotool doctor` as it is typed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Done, typed
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
    assert done.code == ToolMissing.exit_code
    assert done.stderr == ""


def test_working_machine_ends_with_zero(doctor: Doctor, tmp_path: Path) -> None:
    fake_site(tmp_path)
    assert doctor("--quiet", tools="tools").code == 0
