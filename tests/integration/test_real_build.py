"""The real CMake, ninja and compiler on a tiny project shaped like llama.cpp: a shared library, the targets' names."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from fake_tools import Site, commit
from tiny_llama import CMAKELISTS, FILES, real_site

from turbotool.build.record import read_record
from turbotool.errors import CompileFailed, ConfigureFailed

pytestmark = pytest.mark.slow

SUPPORT = str(Path(__file__).parents[1] / "support")
BUILD_AGAIN = """
import json, os, sys
from pathlib import Path
from fake_tools import Site
from turbotool.build.backends import BACKENDS
from turbotool.build.compile import build
from turbotool.build.request import BuildRequest
from turbotool.layout import Layout
from turbotool.system.locks import work_lock
from turbotool.system.output import Output
from turbotool.system.session import Session
site = Site(Layout(*map(Path, sys.argv[1:4])), dict(os.environ), BuildRequest(BACKENDS["cpu"]), private=True)
with work_lock(Session(site.layout, Output(quiet=True)), "build") as held:
    build(site.plan(), held)
"""


def hashes(site: Site) -> dict[str, str]:
    record = read_record(site.folder)
    assert record is not None
    return {output.name: output.sha256 for output in record.outputs}


def say(site: Site, program: str = "llama-cli") -> str:
    done = subprocess.run([site.folder / "bin" / program], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_build_in_a_path_with_spaces_runs_and_reports_the_tree(tmp_path: Path) -> None:
    site = real_site(tmp_path / "my work (1)")
    tree = commit(site.layout.tree, FILES)
    assert not site.build().cached
    assert say(site) == f"0c1e57098-turbo-{tree[:9]} 42"
    assert site.build().cached


def test_programs_find_their_libraries_after_the_folder_moved(tmp_path: Path) -> None:
    site = real_site(tmp_path)
    commit(site.layout.tree, FILES)
    bin_dir = site.build().bin_dir
    moved = shutil.move(bin_dir, tmp_path / "elsewhere")
    assert subprocess.run([Path(moved) / "llama-cli"], check=False, capture_output=True).returncode == 0


def test_one_changed_file_compiles_one_object(tmp_path: Path) -> None:
    site = real_site(tmp_path).asking(options=(("LLAMA_BUILD_COMMIT", "fixed"),))
    commit(site.layout.tree, FILES)
    site.build()
    commit(site.layout.tree, {"unit3.cpp": "int unit3() { return 33; }\n"})
    for path in site.layout.tree.glob("*.*"):
        path.touch()
    site.build()
    log = (site.layout.logs / "build-cpu.log").read_text()
    assert [line.rsplit("/", 1)[-1] for line in log.splitlines() if "Building" in line] == ["unit3.cpp.o"]


def test_compile_error_names_file_line_and_cure(tmp_path: Path) -> None:
    site = real_site(tmp_path / "a b")
    commit(site.layout.tree, {**FILES, "unit3.cpp": "int unit3() {\n  return nothing;\n}\n"})
    with pytest.raises(CompileFailed, match=r"unit3\.cpp:2: .nothing. was not declared|use of undeclared") as caught:
        site.build()
    assert "fix unit3.cpp" in str(caught.value.hint)


def test_cmake_error_names_file_and_line(tmp_path: Path) -> None:
    site = real_site(tmp_path)
    commit(site.layout.tree, {**FILES, "CMakeLists.txt": CMAKELISTS + "find_package(NoSuchThing REQUIRED)\n"})
    with pytest.raises(ConfigureFailed, match=r"CMakeLists\.txt:\d+: By not providing"):
        site.build()


def test_killed_builds_end_in_the_same_bytes(tmp_path: Path) -> None:
    """SIGKILL at random moments: the next run waits for compilers that are still at work, and gives the same bytes."""
    undisturbed = real_site(tmp_path / "calm")
    commit(undisturbed.layout.tree, FILES)
    started = time.monotonic()
    undisturbed.build()
    duration = time.monotonic() - started
    wanted = hashes(undisturbed)
    pick = random.Random(2)
    hit = 0
    for trial in range(8):
        site = real_site(tmp_path / f"trial {trial}")
        commit(site.layout.tree, FILES)
        hit += kill_after(site, pick.uniform(0.1, 0.8) * duration)
        assert finish(site) == 0
        assert hashes(site) == wanted
        assert site.build().cached
    assert hit >= 6


def test_killed_build_of_another_tree_leaves_nothing_stale(tmp_path: Path) -> None:
    site = real_site(tmp_path)
    first = commit(site.layout.tree, FILES)
    site.build()
    wanted = hashes(site)
    commit(site.layout.tree, {"unit0.cpp": "int unit0() { return 5; }\n", "ggml.c": "int ggml(void) { return 1; }\n"})
    kill_after(site, 0.6)
    assert commit(site.layout.tree, FILES) == first
    assert finish(site) == 0
    assert hashes(site) == wanted
    assert say(site).endswith(" 42")


def start(site: Site) -> subprocess.Popen[bytes]:
    folders = [str(value) for value in asdict(site.layout).values()]
    env = {**site.env, "PYTHONPATH": SUPPORT}
    return subprocess.Popen([sys.executable, "-c", BUILD_AGAIN, *folders], env=env, stderr=subprocess.DEVNULL)


def kill_after(site: Site, seconds: float) -> bool:
    """Start a build and kill it; True if it was still at work."""
    child = start(site)
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGKILL)
    return child.wait() == -signal.SIGKILL


def finish(site: Site) -> int:
    return start(site).wait(300)


def test_build_json_survives_as_valid_json(tmp_path: Path) -> None:
    site = real_site(tmp_path)
    commit(site.layout.tree, FILES)
    site.build()
    document = json.loads((site.folder / "build.json").read_text())
    assert document["links"] == {"libggml.so": "libggml.so.0", "libggml.so.0": "libggml.so.0.1.2"}
    assert document["reports"] == say(site).split()[0]
