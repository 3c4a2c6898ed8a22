"""turbotool and other programs, called by the scripts in this folder, never through a shell."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def run(words: Sequence[str | Path], env: Mapping[str, str] | None = None, accept: Sequence[int] = (0,)) -> str:
    """What a program prints on stdout; stderr goes on to the log. Raises SystemExit with a status not accepted."""
    print("+", *words, file=sys.stderr, flush=True)
    done = subprocess.run([str(word) for word in words], env=env, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in accept:
        print(done.stdout, file=sys.stderr)
        raise SystemExit(done.returncode)
    return done.stdout


def turbotool(*words: str | Path, env: Mapping[str, str] | None = None, accept: Sequence[int] = (0,)) -> dict[str, Any]:
    """The document of a turbotool command. Raises SystemExit with its exit code if that is not an accepted one."""
    document = json.loads(run([sys.executable, "-m", "turbotool", *words, "--json"], env, accept))
    assert isinstance(document, dict)
    return document
