"""The command line, run in this process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from turbotool.cli import run


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
