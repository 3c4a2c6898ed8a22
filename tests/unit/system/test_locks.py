"""How long a command waits for another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from turbotool.errors import UsageMistake
from turbotool.system.locks import file_lock
from turbotool.system.output import Output


@pytest.mark.parametrize("seconds", ["soon", "-1", "nan", "inf"])
def test_a_patience_that_is_no_number_of_seconds_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: str
) -> None:
    monkeypatch.setenv("TURBOTOOL_LOCK_TIMEOUT", seconds)
    refused = pytest.raises(UsageMistake, match=f"TURBOTOOL_LOCK_TIMEOUT is '{seconds}'")
    with refused, file_lock(tmp_path / "lock", Output(quiet=True), "test"):
        pass
