from __future__ import annotations

import io

import pytest

from turbotool.system.output import Output, minutes


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00 min"), (185, "3:05 min"), (7385, "2:03:05 h")])
def test_durations_are_written_as_people_read_them(seconds: float, text: str) -> None:
    assert minutes(seconds) == text


def test_on_a_pipe_progress_is_a_line_about_every_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with Output().progress("bench") as step:
        for done in range(41):
            step(done, 40, "x", left=40.0 - done)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert lines[0] == "bench: 0/40, about 0:40 min left"
    assert lines[-1] == "bench: 40/40"


def test_quiet_progress_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Output(quiet=True).progress("bench") as step:
        step(1, 2, "x", left=3.0)
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("left", "shown"), [(7385.0, "2:03:0"), (None, "-:--:--")])
def test_a_bar_shows_the_callers_remaining_time_or_its_own(
    monkeypatch: pytest.MonkeyPatch, left: float | None, shown: str
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("TERM", "xterm")
    with Output().progress("bench") as step:
        step(1, 40, "round 1", left=left)
    assert "1/40" in terminal.getvalue()
    assert shown in terminal.getvalue()
