"""The most memory that a child had at once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from turbotool.system.process import run

MIB = 2**20
# in a process of its own: what this one has, perhaps with all of a test run behind it, would count
TWO = """
import sys
from pathlib import Path
from turbotool.system.process import run
for script in ("held = b'x' * (400 << 20); del held", "pass"):
    print(run([sys.executable, "-c", script], cwd=Path.cwd()).peak)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the system does not tell")
def test_memory_that_a_child_gave_back_counts_and_another_child_s_does_not(tmp_path: Path) -> None:
    large, small = (int(peak) for peak in run([sys.executable, "-c", TWO], cwd=tmp_path).output.split())
    assert 400 * MIB < large < 4000 * MIB
    assert MIB < small < 400 * MIB


@pytest.mark.parametrize(("script", "code"), [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", -9)])
@pytest.mark.skipif(sys.platform == "win32", reason="there are no signals")
def test_how_a_child_ended_is_known_beside_its_memory(tmp_path: Path, script: str, code: int) -> None:
    done = run([sys.executable, "-c", script], cwd=tmp_path, check=False)
    assert done.returncode == code
    assert done.peak
