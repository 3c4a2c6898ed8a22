"""The rooms of the package: their contracts hold and would be missed, and every room says what it is for."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "turbotool"
MODULES = sorted(PACKAGE.rglob("*.py"))
ROOMS = sorted(path.parent for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE)
BIN = Path(sys.executable).parent


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def planted(folder: Path, where: str, line: str) -> Path:
    """A copy of the package with one line more at the end of a module."""
    shutil.copytree(PACKAGE, folder / "turbotool", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    if where:
        with (folder / "turbotool" / where).open("a", encoding="utf-8") as stream:
            stream.write(f"\n{line}\n")
    return folder


def run(folder: Path, program: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BIN / program, *words], cwd=folder, capture_output=True, text=True, check=False)


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return run(folder, "lint-imports", "--no-cache")


def test_the_contracts_hold(tmp_path: Path) -> None:
    done = lint(planted(tmp_path, "", ""))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("where", "line", "broken"),
    [
        ("kv/size.py", "import turbotool.programs.runner", "A room knows only the rooms below it"),
        ("report/table.py", "import turbotool.system.output", "A room knows only the rooms below it"),
        ("verify/run.py", "import turbotool.release.run", "A room knows only the rooms below it"),
        ("release/run.py", "def late():\n    import turbotool.verify.run", "A room knows only the rooms below it"),
        ("evaluation/judge/stats.py", "import turbotool.evaluation.report.table", "The rooms inside an evaluation"),
        ("build/backends.py", "import click", "Only the command line knows click"),
        ("series/apply.py", "import subprocess", "Child processes are started in one place"),
        ("doctor/examine.py", "import git", "Git is called, and its index read, in one place"),
    ],
)
def test_an_import_that_breaks_a_contract_is_found(tmp_path: Path, where: str, line: str, broken: str) -> None:
    done = lint(planted(tmp_path, where, line))
    assert done.returncode == 1, done.stdout
    assert f"{broken} BROKEN" in done.stdout


@pytest.mark.parametrize(
    "library",
    [
        *("matplotlib", "scipy", "distributed", "lief", "gguf", "rich"),
        *("playwright", "jinja2", "markdown_it", "psutil"),
    ],
)
def test_a_heavy_library_at_the_head_of_a_module_is_found(tmp_path: Path, library: str) -> None:
    folder = planted(tmp_path, "kv/size.py", f"import {library}")
    done = run(folder, "ruff", "check", "--no-cache", "--select", "TID253", "turbotool")
    assert f"`{library}` is banned at the module level" in done.stdout


def test_the_rooms_below_know_nothing_of_what_stands_above_them() -> None:
    for room in ("system", "report"):
        words = "".join(path.read_text(encoding="utf-8") for path in (PACKAGE / room).rglob("*.py"))
        assert not re.search(r"gguf|ggml|perplexity|kv_cache", words, re.IGNORECASE)


@pytest.mark.parametrize("room", ROOMS, ids=name_of)
def test_a_room_says_what_it_is_for(room: Path) -> None:
    said = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))) or ""
    assert len(said) > 60
    if room.parent == PACKAGE:
        assert re.search(r"[Ii]mports", said)
        assert "Begin with" in said


def test_a_class_name_occurs_once() -> None:
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in MODULES)
    counts = Counter(node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef))
    assert [name for name, count in counts.items() if count > 1] == []


def test_no_function_takes_apart_what_a_session_holds() -> None:
    found = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                kinds = [ast.unparse(one.annotation) for one in node.args.args if one.annotation]
                if {"Layout", "Output"} <= set(kinds):
                    found.append(f"{name_of(path)}: {node.name}")
    assert found == []
