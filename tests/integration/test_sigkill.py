"""SIGKILL at random moments, and ten processes at once: the next run succeeds and the tree is the same."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest
from command_line import apart, finished, started, variables_of

from turbotool.errors import SourceError
from turbotool.layout import Layout, find_layout
from turbotool.series.apply import ensure_applied
from turbotool.series.export import export
from turbotool.system import git
from turbotool.system.digest import sha256_file
from turbotool.system.output import Output
from turbotool.system.session import Session
from turbotool.upstream import correction
from turbotool.upstream.lock import Upstream, read_lock
from turbotool.upstream.pypi import fetch_pypi

pytestmark = pytest.mark.slow
QUIET = Output(quiet=True)
TRIALS = 10  # for each of the two commands
TRAILERS = "\n\nReason: feature\nUpstream: none\nDrop-when: never\n"
BUSY = 120.0  # seconds that a killed run's last git may take to end


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A work folder of its own, on the locked source distribution if it can be had, else on 1,500 made-up files."""
    folder = tmp_path_factory.mktemp("sigkill") / "a folder"
    real = find_layout()
    up = read_lock(real).upstream
    made = Layout(folder / "root", folder / "root", folder / "cache")
    made.overlay.mkdir(parents=True)
    made.series.write_text("# order\n")
    made.lock_file.parent.mkdir()
    try:
        into = real.cache / "downloads"
        path = fetch_pypi(up.package, up.version, up.archive, up.sha256, up.size, into, QUIET)
        there = made.cache / "downloads"
        there.mkdir(parents=True)
        shutil.copyfile(path, there / up.archive)
        shutil.copytree(correction.folder(real), correction.folder(made))
        upstream = up
    except SourceError as error:
        print(f"made-up upstream, because the real one cannot be had: {error.message}")
        upstream = made_up(folder)
    lines = [f"{item.name} = {json.dumps(getattr(upstream, item.name))}" for item in fields(upstream)]
    series = f'tree = "{upstream.tree}"\noverlay = "{hashlib.sha256().hexdigest()}"\npatches = []\n'
    made.lock_file.write_text("[upstream]\n" + "\n".join(lines) + f"\n[series]\n{series}")
    make_series(made)
    return made


def made_up(folder: Path) -> Upstream:
    """1,500 files in a tar, locked like the real thing."""
    repository = git.init(folder / "upstream")
    for number in range(1500):
        file = repository.folder / f"d{number % 40}" / f"f{number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{number} {number * 7919}\n" * 500)
    repository.run("add", "--force", "--all")
    repository.run("commit", "--quiet", "--message", "release")
    path = folder / "upstream.tar"
    repository.run("archive", "--format=tar", f"--output={path}", "HEAD")
    tree = repository.tree_of("HEAD")
    return Upstream("archive", tree, archive=str(path), sha256=sha256_file(path), size=path.stat().st_size)


def make_series(made: Layout) -> None:
    """Five patches that change 60 files each, and an overlay of 200 files, exported from the vendored tree."""
    ensure_applied(Session(made, QUIET))
    tree = git.Git(made.tree)
    texts = [name for name in tree.files("HEAD") if name.endswith((".txt", ".cpp", ".h", ".md", ".py"))]
    for number in range(200):
        path = made.tree / "turbo" / f"own{number}.c"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"int own{number};\n" * 500)
    for patch in range(5):
        for name in texts[patch::7][:60]:
            path = made.tree / name
            path.write_bytes(path.read_bytes() + f"\nchanged by {patch}\n".encode())
        tree.run("add", "--force", "--all")
        tree.run("commit", "--quiet", "--message", f"Change number {patch}{TRAILERS}")
    export(Session(made, QUIET))


def start(layout: Layout, *words: str) -> subprocess.Popen[str]:
    return started(*words, "--json", variables=variables_of(layout))


def at_start(layout: Layout, command: str) -> None:
    """The state from which the command has all its work to do."""
    if command == "vendor":
        shutil.rmtree(layout.vendor / "llama.cpp", ignore_errors=True)
    else:
        finished(start(layout, "vendor"))
        tree = git.Git(layout.tree)
        tree.run("checkout", "--quiet", "--detach", git.BASE_REF)
        for name in tree.refs():
            if name.startswith(git.APPLIED_REFS):
                tree.run("update-ref", "-d", name)


@pytest.mark.parametrize("command", ["vendor", "apply"])
def test_after_a_kill_at_any_moment_the_next_run_gives_the_same_tree(layout: Layout, command: str) -> None:
    words = ("vendor",) if command == "vendor" else ("patch", "apply")
    at_start(layout, command)
    began = time.monotonic()
    wanted = finished(start(layout, *words))["tree"]
    lasts = time.monotonic() - began
    chance = random.Random(20260101)
    killed, spread = 0, lasts
    for _ in range(3 * TRIALS):
        if killed == TRIALS:
            break
        at_start(layout, command)
        child = start(layout, *words)
        # One moment in each tenth of the run, so that every phase is hit.
        if ended_before(child, lasts * (killed + chance.random()) / TRIALS):
            lasts *= 0.9  # the machine has become faster; that was no trial
        else:
            killed += 1
        document = finished(start(layout, *words))
        assert document["tree"] == wanted, f"trial {killed}"
        tree = git.Git(layout.tree)
        assert tree.status() == []
        if command == "apply":
            assert tree.tree_of("HEAD") == wanted
        assert tree.tree_of(git.BASE_REF) == read_lock(layout).upstream.tree
        assert not list((layout.state / "scratch").iterdir())
    assert killed == TRIALS
    print(f"{command}: {killed} runs were killed, spread over {spread:.1f} s")


def ended_before(child: subprocess.Popen[str], moment: float) -> bool:
    """Kill the child's process group after `moment` seconds; True when it had ended by itself."""
    time.sleep(moment)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
    return child.returncode != -signal.SIGKILL


def test_a_git_that_outlives_the_killed_run_still_holds_the_lock(layout: Layout) -> None:
    at_start(layout, "vendor")
    child = start(layout, "vendor")
    deadline = time.monotonic() + BUSY
    while not list(layout.state.glob("scratch/*/llama.cpp/.git/index.lock")):  # git add is at work
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
    document = finished(start(layout, "vendor"))
    assert document["tree"] == read_lock(layout).upstream.tree


def test_ten_processes_at_once_end_consistently(layout: Layout) -> None:
    at_start(layout, "vendor")
    words = [("vendor",), ("patch", "apply")] * 5
    documents = [finished(child) for child in [start(layout, *each) for each in words]]
    locked = read_lock(layout)
    assert {document["tree"] for document in documents[::2]} == {locked.upstream.tree}
    assert {document["tree"] for document in documents[1::2]} == {locked.series.tree}
    assert git.Git(layout.tree).tree_of("HEAD") == locked.series.tree
    assert git.Git(layout.tree).status() == []


def test_a_waiting_process_says_who_holds_the_work_folder_and_gives_up_in_time(layout: Layout, tmp_path: Path) -> None:
    code = (
        "from turbotool.layout import find_layout\nfrom turbotool.system.locks import work_lock\n"
        "from turbotool.system.output import Output\nfrom turbotool.system.session import Session\nimport time\n"
        "with work_lock(Session(find_layout(), Output()), 'sleep'):\n"
        "    print('held', flush=True)\n    time.sleep(60)\n"
    )
    variables = {**variables_of(layout), "TURBOTOOL_LOCK_TIMEOUT": "1"}
    env = {**os.environ, **variables}
    with subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        done = apart("vendor", "--json", variables=variables)
        holder.kill()
    assert done.code == 27
    assert f"pid {holder.pid}" in done.stderr
    assert done.document["error"]["class"] == "Busy"
