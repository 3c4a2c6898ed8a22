"""Ten turbotool processes on one work folder: each ends well, and together they leave what one alone would."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from command_line import finished, started, variables_of
from tiny_series import FILES, Project, make_project

from turbotool.build.targets import TARGETS
from turbotool.series.apply import ensure_applied
from turbotool.series.export import export
from turbotool.upstream.lock import read_lock

pytestmark = pytest.mark.slow  # a real CMake and compiler, and ten processes on few cores

LISTS = f"""cmake_minimum_required(VERSION 3.14)
project(tiny CXX)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${{CMAKE_BINARY_DIR}}/bin)
foreach(name {" ".join(TARGETS)})
    add_executable(${{name}} main.cpp)
endforeach()
"""
# Nothing is vendored when they start, so that whoever comes first has everything to do.
TOGETHER = [
    *[("build", "--backend", "cpu", "--jobs", "1")] * 4,
    *[("vendor",)] * 2,
    *[("patch", "apply")] * 2,
    ("patch", "check"),
    ("doctor",),
]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A program that CMake can build and one patch to it, exported; nothing is vendored."""
    files = {**FILES, "CMakeLists.txt": LISTS, "main.cpp": "int main() { return 0; }\n"}
    made = make_project(tmp_path / "a folder", files)
    ensure_applied(made.session)
    made.edit("main.cpp", "int main", "static int turbo = 0;\nint main")
    made.edit("main.cpp", "return 0", "return turbo")
    made.commit("Return what turbo holds")
    export(made.session)
    shutil.rmtree(made.layout.vendor / "llama.cpp")
    return made


def start(project: Project, words: tuple[str, ...]) -> subprocess.Popen[str]:
    return started(*words, "--json", variables=variables_of(project.layout))


def test_ten_processes_started_together_end_consistently(project: Project) -> None:
    children = [start(project, words) for words in TOGETHER]
    documents = [finished(child, timeout=900) for child in children]
    builds, vendored, applied = documents[:4], documents[4:6], documents[6:8]
    lock = read_lock(project.layout)

    assert {document["tree"] for document in vendored} == {lock.upstream.tree}
    assert {document["tree"] for document in (*applied, *builds)} == {lock.series.tree}
    assert Counter(document["cached"] for document in builds) == {False: 1, True: 3}
    assert len({json.dumps(document["outputs"]) for document in builds}) == 1
    assert [patch["state"] for patch in documents[8]["patches"]] == ["clean"]

    assert project.tree.tree_of("HEAD") == lock.series.tree
    assert project.tree.status() == []
    left = {path.name for path in project.layout.state.iterdir()}
    assert not left & {"journal.json", "lock.json", "lock.killed"}
    assert not list((project.layout.state / "scratch").iterdir())
    assert finished(start(project, TOGETHER[0]), timeout=900)["cached"] is True
