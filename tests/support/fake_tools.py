"""Small real programs that stand in for compilers, CMake, ninja and llama-bench, and a tiny real git tree to build."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from turbotool.build.backends import BACKENDS
from turbotool.build.compile import BuildOutcome, build
from turbotool.build.host import Choices
from turbotool.build.plan import BuildPlan, make_plan
from turbotool.build.request import BuildRequest, PatchedSource
from turbotool.build.tools import find_tools
from turbotool.layout import Layout
from turbotool.system.output import Output
from turbotool.system.session import Session
from turbotool.upstream.lock import Upstream

# A shell starts background jobs with Ctrl-C ignored, and so would be what the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

QUIET = Output(quiet=True)

# Shell scripts, because they start at once. Their PATH holds nothing but fakes.
CMAKE = r"""
if [ "$1" = --version ]; then echo "cmake version 3.99.1"; exit; fi
printf '%s\n' "$@" > "$4/arguments.txt"
/usr/bin/env > "$4/variables.txt"
echo cache > "$4/CMakeCache.txt"
if [ -n "$FAKE_CMAKE_FAILURE" ]; then printf '%s\n' "$FAKE_CMAKE_FAILURE"; exit 1; fi
[ -z "$FAKE_CMAKE_SAYS" ] || printf '%s\n' "$FAKE_CMAKE_SAYS"
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

CACHED_TOKEN_NS = {"f16": 2000, "q8_0": 1000, "q4_0": 3000, "turbo4": 4000, "turbo3": 5000, "turbo2": 6000}
STOCK_TYPES = ("f16", "q8_0", "q4_0")

# Times are exact: 1 ms for a token of a prompt; 10 ms for a decoded one, and what each cached token adds to it, which
# depends on the type of K. Threads divide them.
LLAMA_BENCH = r"""
import json
from pathlib import Path
here = Path(__file__).parent
known = json.loads((here / "behaviour.json").read_text())
words = sys.argv[1:]
asked = dict(zip(words[::2], words[1::2]))
if asked["-ctk"] not in known["types"] or asked.get("-ctv", "f16") not in known["types"]:
    sys.exit("error: invalid parameter for argument: -ctk")
if "-h" in words:
    print("" if known["stock"] else "--kv-calibration auto|off|FILE")
    sys.exit(0)
how = os.environ["LLAMA_ARG_KV_CALIBRATION"]
if "-v" in words:
    on = how != "off" and known["trouble"].get(asked["-ctk"]) != "unmeasured"
    what = "2 layers, hash 00000000000000ab, for 512 positions (x)" if on else "(not measured)"
    print(f"kv_calibration: {'on' if on else 'off'}, K {asked['-ctk']}" + (", " if on else " ") + what)
    sys.exit(0)
runs = here.parent / "runs.jsonl"
with runs.open("a") as log:
    variables = {name: value for name, value in os.environ.items() if name.startswith(("LLAMA_", "OMP_"))}
    kept = variables.pop("LLAMA_CACHE")
    log.write(json.dumps({"build": here.name, "env": variables, "kept": kept, **asked}) + "\n")
depth, threads = int(asked["-d"]), int(asked["-t"])
trouble = known["trouble"].get(asked["-ctk"] + "@" + asked["-d"], "")
if trouble == "interrupt":
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(30)
elif trouble.startswith("SIG"):
    print("about to crash", flush=True)
    os.kill(os.getpid(), getattr(signal, trouble))
elif trouble == "silent":
    sys.exit(0)
for n_prompt, n_gen in ((int(asked["-p"]), 0), (0, int(asked["-n"]))):
    if n_prompt + n_gen == 0:
        continue
    ns = (n_prompt * 10**6 + n_gen * (10**7 + depth * known["cached"][asked["-ctk"]])) * known["slow"] / threads
    print(json.dumps({
        "build_commit": "newer" if trouble == "rebuilt" else known["commit"], "gpu_info": "",
        "model_filename": asked["-m"], "n_threads": threads,
        "type_k": "f16" if trouble == "config" else asked["-ctk"], "type_v": asked["-ctv"], "flash_attn": 1,
        "n_prompt": n_prompt, "n_gen": n_gen, "n_depth": depth, "samples_ns": [round(ns)],
    }), flush=True)
"""


def program(path: Path, body: str) -> Path:
    """An executable shell script; a test that asks for one is skipped where there is no shell."""
    if os.name == "nt":
        pytest.skip("the fake programs are shell scripts")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}", encoding="utf-8")
    path.chmod(0o755)
    return path


def says(path: Path, text: str, status: int = 0) -> Path:
    """A program that prints `text` and ends with `status`, whatever it is asked."""
    return program(path, f"printf '%s\\n' {shlex.quote(text)}\nexit {status}\n")


def python_program(path: Path, body: str) -> Path:
    """An executable Python script."""
    script = path.with_name(f"{path.name}.py")
    path.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(f"import os, signal, sys, time\n{body}\n", encoding="utf-8")
    # by way of the shell: a path with a space cannot stand after #!
    return program(path, f'exec {shlex.join([sys.executable, "-S", str(script)])} "$@"\n')


def llama_bench(folder: Path, **behaviour: object) -> Path:
    """A folder with a fake llama-bench, which knows `types`, calls itself `commit` and is `slow` times slower.

    `stock` knows nothing of calibrations.

    `trouble` maps K type and depth, as in `turbo3@512`, to what goes wrong there: a signal's name, `config`, `silent`,
    `rebuilt`, or `interrupt`, which is Ctrl-C for turbotool. Every run is noted in runs.jsonl beside the folder.
    """
    defaults = {"types": list(CACHED_TOKEN_NS), "commit": "f00f00f00", "slow": 1.0, "trouble": {}, "stock": False}
    python_program(folder / "llama-bench", LLAMA_BENCH)
    known = {**defaults, **behaviour, "cached": CACHED_TOKEN_NS}
    (folder / "behaviour.json").write_text(json.dumps(known), encoding="utf-8")
    return folder


def bench_runs(folder: Path) -> list[dict[str, Any]]:
    """What the fake llama-bench programs in folders of `folder` were asked to measure, in order."""
    log = folder / "runs.jsonl"
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []


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


UPSTREAM = Upstream("pypi", "ab" * 20, commit="0c1e57098bba43ac29e6e3b677cdceebdd22334f")


@dataclass(frozen=True)
class Site:
    """A work folder with a committed source tree, an environment and a request: all that a build needs."""

    layout: Layout
    env: Mapping[str, str]
    request: BuildRequest
    private: bool = False
    upstream: Upstream = UPSTREAM

    @property
    def folder(self) -> Path:
        return self.layout.build(self.request.backend.name)

    def plan(self) -> BuildPlan:
        tree = git(self.layout.tree, "rev-parse", "HEAD^{tree}")
        source = PatchedSource(self.layout.tree, tree, self.upstream, "series")
        names = ("cmake", "ninja", "c", "c++", "ccache", "sccache", *self.request.backend.tools)
        return make_plan(self.layout, self.request, source, find_tools(self.env, names, private=self.private), self.env)

    def build(self, out: Output = QUIET) -> BuildOutcome:
        return build(self.plan(), Session(self.layout, out))

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
    return Site(layout, {"PATH": str(tools)}, BuildRequest(BACKENDS[backend], Choices()))


def cpu_seconds() -> float:
    """What this process and its ended children have computed: unlike wall time it does not depend on what else runs."""
    return sum(os.times()[:4])


def real(name: str) -> str:
    found = shutil.which(name)
    assert found, f"the tests need {name}"
    return found
