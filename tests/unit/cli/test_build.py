from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_tools import cpu_seconds

from turbotool.errors import BackendUnavailable


def turbotool(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # An empty root: whatever is refused must be refused before the lock is read or anything is fetched.
    env = {**os.environ, "TURBOTOOL_ROOT": str(folder), "TURBOTOOL_WORK": str(folder / "work")}
    command = [sys.executable, "-m", "turbotool", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])


@pytest.mark.skipif(sys.platform == "darwin", reason="Metal is at home there")
def test_metal_off_macos_is_refused_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    started = cpu_seconds()
    done = turbotool(tmp_path, "build", "--backend", "metal", "--json")
    assert cpu_seconds() - started < 1
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (BackendUnavailable.exit_code,) * 2
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
def test_mistake_on_the_command_line_is_exit_code_2(tmp_path: Path, words: list[str], complaint: str) -> None:
    done = turbotool(tmp_path, "build", *words)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
