"""Small real programs that stand in for compilers, CMake and ninja, and a tiny real git tree to build."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from turbotool.backend import BACKENDS, Choices
from turbotool.build import Outcome, build
from turbotool.buildkey import Request, Source
from turbotool.buildplan import Plan, make_plan
from turbotool.layout import Layout
from turbotool.output import Output
from turbotool.tools import find_tools

QUIET = Output(quiet=True)

# Shell scripts, because they start at once. Their PATH holds nothing but fakes.
CMAKE = r"""
if [ "$1" = --version ]; then echo "cmake version 3.99.1"; exit; fi
printf '%s\n' "$@" > "$4/arguments.txt"
/usr/bin/env > "$4/variables.txt"
echo cache > "$4/CMakeCache.txt"
if [ -n "$FAKE_CMAKE_FAILURE" ]; then printf '%s\n' "$FAKE_CMAKE_FAILURE"; exit 1; fi
echo "-- Configuring done"
"""

NINJA = r"""
if [ "$1" = --version ]; then echo 1.99.0; exit; fi
if [ "$1 $2" = "-t inputs" ]; then shift 2; printf 'bin/%s\n' "$@" libggml.so.1; exit; fi
echo "$@" >> ninja-runs.txt
if [ -n "$FAKE_NINJA_FAILURE" ]; then printf '[1/3] Building x.o\n%s\n' "$FAKE_NINJA_FAILURE"; exit 1; fi
shift 2
done=0 total=$(($# + 1))
/bin/mkdir -p bin
for target in "$@" libggml.so.1; do
    done=$((done + 1))
    echo "[$done/$total] Linking CXX executable bin/$target"
    [ "$target" = "$FAKE_NINJA_FORGETS" ] || echo "built $target" > "bin/$target"
done
/bin/chmod 755 bin/*
/bin/ln -sf libggml.so.1 bin/libggml.so
"""


def program(path: Path, body: str) -> Path:
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}", encoding="utf-8")
    path.chmod(0o755)
    return path


def says(path: Path, text: str, status: int = 0) -> Path:
    """A program that prints `text` and ends with `status`, whatever it is asked."""
    return program(path, f"printf '%s\\n' {shlex.quote(text)}\nexit {status}\n")


def toolbox(folder: Path) -> Path:
    """A folder with a fake cmake, ninja and compilers, to be the whole PATH."""
    program(folder / "cmake", CMAKE)
    program(folder / "ninja", NINJA)
    says(folder / "cc", "cc (Fake 12.2.0-1) 12.2.0")
    says(folder / "c++", "c++ (Fake 12.2.0-1) 12.2.0")
    return folder


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True)  # noqa: S607
    return done.stdout.strip()


def commit(folder: Path, files: Mapping[str, str]) -> str:
    """Write and commit `files` in the repository at `folder` (made if needed); the tree hash."""
    if not (folder / ".git").exists():
        folder.mkdir(parents=True, exist_ok=True)
        git(folder, "init", "-q")
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "x", "--allow-empty")
    return git(folder, "rev-parse", "HEAD^{tree}")


@dataclass(frozen=True)
class Site:
    """A work folder with a committed source tree, an environment and a request: all that a build needs."""

    layout: Layout
    env: Mapping[str, str]
    request: Request
    private: bool = False

    @property
    def folder(self) -> Path:
        return self.layout.build(self.request.backend.name)

    def plan(self) -> Plan:
        tree = git(self.layout.tree, "rev-parse", "HEAD^{tree}")
        source = Source(self.layout.tree, tree, "0c1e57098bba43ac29e6e3b677cdceebdd22334f", "pypi", "series")
        names = ("cmake", "ninja", "c", "c++", "ccache", "sccache", *self.request.backend.tools)
        return make_plan(self.layout, self.request, source, find_tools(self.env, names, private=self.private), self.env)

    def build(self, out: Output = QUIET) -> Outcome:
        return build(self.plan(), out)

    def setting(self, **variables: str) -> Site:
        return replace(self, env={**self.env, **variables})

    def asking(self, **changes: object) -> Site:
        return replace(self, request=replace(self.request, **changes))  # type: ignore[arg-type]

    def runs(self) -> list[str]:
        """The command lines with which the fake ninja was asked to build."""
        file = self.folder / "ninja-runs.txt"
        return file.read_text().splitlines() if file.exists() else []


def fake_site(folder: Path, backend: str = "cpu") -> Site:
    """A site whose whole PATH is fake tools, git apart."""
    tools = toolbox(folder / "tools")
    (tools / "git").symlink_to(real("git"))
    layout = Layout(folder / "root", folder / "work folder", folder / "cache")
    commit(layout.tree, {"main.cpp": "int main() {}\n", "a/b.h": "#define B 1\n"})
    return Site(layout, {"PATH": str(tools)}, Request(BACKENDS[backend], Choices()))


def cpu_seconds() -> float:
    """What this process and its ended children have computed: unlike wall time it does not depend on what else runs."""
    return sum(os.times()[:4])


def real(name: str) -> str:
    found = shutil.which(name)
    assert found, f"the tests need {name}"
    return found
