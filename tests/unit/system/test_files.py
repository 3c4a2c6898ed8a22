"""Whether a report could be written, asked before the work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from turbotool.errors import UsageMistake
from turbotool.system.files import writable_file


def test_a_new_file_gets_its_folder_and_an_old_one_is_left_alone(tmp_path: Path) -> None:
    writable_file(tmp_path / "reports" / "new.xml")
    assert list((tmp_path / "reports").iterdir()) == []
    (tmp_path / "old.xml").write_text("old")
    writable_file(tmp_path / "old.xml")
    assert (tmp_path / "old.xml").read_text() == "old"
    writable_file(Path(os.devnull))


def test_a_folder_and_what_is_below_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "report.xml"):
        with pytest.raises(UsageMistake, match="cannot write to"):
            writable_file(path)
