"""The one way to run turbotool in a test: in this process, or in one of its own where the test is about processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from turbotool.cli.main import run
from turbotool.layout import Layout

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


def typed(words: Sequence[str | Path], capsys: pytest.CaptureFixture[str]) -> Done:
    """Run turbotool with these words, in this process."""
    with pytest.raises(SystemExit) as caught:
        run([str(word) for word in words])
    out, err = capsys.readouterr()
    return Done(int(caught.value.code or 0), out, err)


def private(folder: Path) -> dict[str, str]:
    """Variables with which turbotool has a work folder and a cache in `folder`."""
    return {"TURBOTOOL_WORK": str(folder / "work"), "TURBOTOOL_CACHE": str(folder / "cache")}


def variables_of(layout: Layout) -> dict[str, str]:
    """Variables with which turbotool works in this layout, whose work folder is its root."""
    return {"TURBOTOOL_ROOT": str(layout.root), "TURBOTOOL_CACHE": str(layout.cache)}


def started(*words: str | Path, variables: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """turbotool in a process, and a group of processes, of its own, with these variables besides ours."""
    command = [sys.executable, "-m", "turbotool", *map(str, words)]
    env, pipe = {**os.environ, **(variables or {})}, subprocess.PIPE
    return subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def ended(child: subprocess.Popen[str], timeout: float = 600) -> Done:
    """How it ends, in so many seconds."""
    with child:
        try:
            out, err = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            child.kill()
            raise
    return Done(child.returncode, out, err)


def finished(child: subprocess.Popen[str], code: int = 0, timeout: float = 600) -> dict[str, Any]:
    """The document of a command with --json that must end with this code."""
    done = ended(child, timeout)
    assert done.code == code, done.stderr[-4000:]
    return done.document


def apart(*words: str | Path, variables: Mapping[str, str] | None = None, timeout: float = 600) -> Done:
    """Run turbotool in a process of its own."""
    return ended(started(*words, variables=variables), timeout)


def document(*words: str | Path, variables: Mapping[str, str] | None = None, timeout: float = 600) -> dict[str, Any]:
    """What a command that must succeed says to --json, in a process of its own."""
    return finished(started(*words, "--json", variables=variables), timeout=timeout)
