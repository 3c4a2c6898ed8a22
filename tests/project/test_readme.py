"""The README: short, with one row for each command; and the exit codes that it links to."""

from __future__ import annotations

import re
from pathlib import Path

import reference

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LONGEST = 115  # lines; what needs more is a page in docs/


def test_readme_lists_exactly_the_commands() -> None:
    table = README.partition("## Commands")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `turbotool ([\w-]+)", table, re.MULTILINE) == reference.names()


def test_readme_stays_short() -> None:
    assert len(README.splitlines()) <= LONGEST


def test_the_page_of_exit_codes_lists_exactly_the_codes_of_the_errors() -> None:
    page = (ROOT / "docs/reference/exit-codes.md").read_text(encoding="utf-8")
    listed = [(int(code), name) for code, name in re.findall(r"^\| (\d+) \| `(\w+)` \| \S", page, re.MULTILINE)]
    assert listed == [(error.exit_code, error.__name__) for error in reference.classes()]


def test_every_error_has_its_own_exit_code() -> None:
    codes = [error.exit_code for error in reference.classes()]
    assert len(set(codes)) == len(codes)
    assert 0 not in codes
    assert [error.__name__ for error in reference.classes() if error.exit_code == 1] == ["UnexpectedFailure"]
