"""The most memory that a child had at once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from turbotool.system.process import run

MIB = 2**20
HELD = "held = b'x' * ({} << 20); del held"


@pytest.mark.skipif(sys.platform == "win32", reason="the system does not tell")
def test_memory_that_a_child_gave_back_counts_and_another_child_s_does_not(tmp_path: Path) -> None:
    large = run([sys.executable, "-c", HELD.format(400)], cwd=tmp_path)
    small = run([sys.executable, "-c", "pass"], cwd=tmp_path)
    assert large.peak is not None
    assert small.peak is not None
    assert 400 * MIB < large.peak < 4000 * MIB
    assert MIB < small.peak < large.peak


@pytest.mark.parametrize(("script", "code"), [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", -9)])
@pytest.mark.skipif(sys.platform == "win32", reason="there are no signals")
def test_how_a_child_ended_is_known_beside_its_memory(tmp_path: Path, script: str, code: int) -> None:
    done = run([sys.executable, "-c", script], cwd=tmp_path, check=False)
    assert done.returncode == code
    assert done.peak
