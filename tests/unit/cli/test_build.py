"""`turbotool build` as it is typed: what it refuses before anything is read or fetched."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from command_line import apart, typed
from fake_tools import cpu_seconds

from turbotool.errors import BackendUnavailable


def nothing_in(folder: Path) -> dict[str, str]:
    """Variables of an empty checkout: whatever is refused must be refused before the lock is read."""
    return {"TURBOTOOL_ROOT": str(folder), "TURBOTOOL_WORK": str(folder / "work")}


@pytest.mark.skipif(sys.platform == "darwin", reason="Metal is at home there")
def test_metal_off_macos_is_refused_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    started = cpu_seconds()
    done = apart("build", "--backend", "metal", "--json", variables=nothing_in(tmp_path))
    assert cpu_seconds() - started < 1
    error = done.document["error"]
    assert (done.code, error["code"]) == (BackendUnavailable.exit_code,) * 2
    assert error["class"] == "BackendUnavailable"
    assert error["hint"] == "turbotool build --backend cpu"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--backend", "vulcan"], "did you mean 'vulkan'?"),
        (["--cmake-option", "GGML_LTO"], "'GGML_LTO' is not NAME=VALUE"),
        (["--cmake-option", "A B=1"], "'A B=1' is not NAME=VALUE"),
        (["--arch", "86"], "--arch belongs to --backend cuda"),
        (["--backend", "cuda", "--arch", "8 6"], "is not a list such as 86,89"),
        (["--jobs", "0"], "0 is not in the range"),
    ],
)
def test_mistake_on_the_command_line_is_exit_code_2(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    complaint: str,
) -> None:
    for name, value in nothing_in(tmp_path).items():
        monkeypatch.setenv(name, value)
    done = typed(["build", *words], capsys)
    assert done.code == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
