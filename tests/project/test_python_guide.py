"""The code on the page about Python runs as it stands, with fake programs."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from command_line import private, variables_of
from fake_calibrate import calibrate_programs
from fake_eval import eval_programs
from fake_package import fake_package
from fake_tools import commit, llama_bench
from fake_verify import verify_programs
from tiny_gguf import gguf, write
from tiny_series import LINES, Project, release

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "python.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake programs are scripts")


def code(text: str) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


def run_section(title: str, changed: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run the code of a section after that of the head of the page; what it leaves in its variables."""
    text = code(PAGE.partition("\n## ")[0]) + "\nfrom turbotool.kv.cachetype import CachePair\n" + code(SECTIONS[title])
    for old, new in (changed or {}).items():
        assert old in text
        text = text.replace(old, new)
    variables: dict[str, Any] = {}
    exec(compile(text, title, "exec"), variables)  # noqa: S102 (our own page)
    return variables


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, a text, and a place for programs, in which the code runs."""
    write(tmp_path, gguf())
    (tmp_path / "text.txt").write_text("word " * 5000)
    for name, value in private(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_section_has_code_that_a_test_runs() -> None:
    assert [title for title, body in SECTIONS.items() if code(body)] == list(SECTIONS)
    assert list(SECTIONS) == [
        "Prove a build",
        "Choose a cache",
        "Calibrate a cache",
        "Measure speed",
        "Make a release archive",
        "Move the pin",
    ]


def test_a_build_is_proven(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verify_programs(folder / "build/cpu/bin")
    assert run_section("Prove a build")["proof"].ok
    assert "('binaries-start', " in capsys.readouterr().out


def test_a_cache_is_chosen(folder: Path) -> None:
    pytest.importorskip("scipy")
    eval_programs(folder / "build/cpu/bin")
    found = run_section("Choose a cache")["found"]
    assert str(found.choice.configuration) == "q8_0/turbo4 rotated v"


def test_a_cache_is_calibrated(folder: Path) -> None:
    calibrate_programs(folder / "build/cpu/bin")
    made = run_section("Calibrate a cache")["made"]
    assert made.check.verdict == "better"
    assert made.target.path == folder / "model.kvcal.gguf"


def test_speed_is_measured(folder: Path) -> None:
    llama_bench(folder / "build/cpu/bin")
    done = run_section("Measure speed")["done"]
    assert done.error() is None
    assert len([cell for cell in done.cells if cell.speed]) == len(done.cells) > 0


def test_an_archive_is_made_of_programs_that_are_proven(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = "A sentence of the documentation that is long enough to be prose.\n\n"
    commit(folder / "work/vendor/llama.cpp", {"README.md": sentence * 100})
    monkeypatch.setattr("turbotool.release.package.collect", lambda *_: fake_package())
    made = run_section("Make a release archive")["made"]
    assert made.verified
    assert hashlib.sha256(made.archive.read_bytes()).hexdigest() == made.sha256


def test_the_pin_is_moved(patched: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables_of(patched.layout).items():
        monkeypatch.setenv(name, value)
    ref = release(patched, "v2", {"src/core.cpp": LINES.replace("line 8\n", "line eight\n")})
    moved = run_section("Move the pin", {"0.3.36": ref})["moved"]
    assert (moved.moved, moved.proven, len(moved.patches)) == (True, False, 2)
