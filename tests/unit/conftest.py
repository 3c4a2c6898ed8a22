"""What tests of more than one package start from."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import private
from eval_site import EvalSite, make_eval_folder


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> EvalSite:
    """A model, a text and fake programs for `turbotool eval`, which works in a folder beside them."""
    for name, value in private(tmp_path).items():
        monkeypatch.setenv(name, value)
    return EvalSite(tmp_path, make_eval_folder(tmp_path), capsys)
