from __future__ import annotations

import inspect
import re
from pathlib import Path

from turbotool import errors
from turbotool.cli.lazy import COMMANDS
from turbotool.errors import TurbotoolError

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def classes() -> list[type[TurbotoolError]]:
    found = [value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, TurbotoolError)]
    return sorted((error for error in found if error is not TurbotoolError), key=lambda error: error.exit_code)


def meaning(error: type[TurbotoolError]) -> str:
    """The first clause of its documentation."""
    return re.split(r"[;.](?:\s|$)", " ".join(str(error.__doc__).split()))[0]


def exit_code_table() -> str:
    """The table as README must have it; paste it there when errors.py changes."""
    rows = [f"| {error.exit_code} | `{error.__name__}` | {meaning(error)} |" for error in classes()]
    return "\n".join(["| code | error | meaning |", "|---|---|---|", *rows])


def test_readme_lists_exactly_the_exit_codes_of_the_errors() -> None:
    between = README.partition("<!-- exit codes: begin -->\n")[2].partition("\n<!-- exit codes: end -->")[0]
    assert between == exit_code_table()


def test_every_error_has_its_own_exit_code() -> None:
    codes = [error.exit_code for error in classes()]
    assert len(set(codes)) == len(codes)
    assert not {0, 1} & set(codes)


def test_readme_lists_exactly_the_commands() -> None:
    table = README.partition("## Commands")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `turbotool (\w+)", table, re.MULTILINE) == list(COMMANDS)
