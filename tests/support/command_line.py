"""The command line, run in this process or in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from turbotool.cli.main import run

NEED_A_DEVICE = {"device-driver", "turbo-devices"}  # the checks that verify skips in a build for the CPU


@dataclass(frozen=True)
class Done:
    """How a command ended and what it printed."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        found = json.loads(self.stdout)
        assert isinstance(found, dict)
        return found


def typed(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> Done:
    """Run turbotool with these words."""
    with pytest.raises(SystemExit) as caught:
        run(list(words))
    out, err = capsys.readouterr()
    return Done(int(caught.value.code or 0), out, err)


def finished(child: subprocess.Popen[str], code: int = 0, timeout: float = 600) -> dict[str, Any]:
    """The document of a command with --json that must end with this code, in so many seconds."""
    with child:
        try:
            out, err = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            child.kill()
            raise
    assert child.returncode == code, err[-4000:]
    found = json.loads(out)
    assert isinstance(found, dict)
    return found


def apart(folder: Path, *words: str | Path) -> Done:
    """Run turbotool in a process of its own, with a work folder and a cache in `folder`."""
    environment = {"TURBOTOOL_WORK": str(folder / "work"), "TURBOTOOL_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "turbotool", *map(str, words)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return Done(done.returncode, done.stdout, done.stderr)
