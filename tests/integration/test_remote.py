"""Remote devices: ours compute what this machine computes alone, a stock server gets nothing that it does not know."""

from __future__ import annotations

import io
import re
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from command_line import document

from turbotool.inputs.default_model import default_model
from turbotool.kv.calibration import UNCALIBRATED
from turbotool.layout import find_layout
from turbotool.programs.runner import clean_environment
from turbotool.system.output import Output
from turbotool.system.session import Session
from turbotool.upstream.lock import read_lock

pytestmark = pytest.mark.release  # it compiles the programs again, with remote devices, and a server of stock upstream

SERVER = "ggml-rpc-server"
BUILD_SECONDS = 3600
SECONDS = 600  # of a run that takes a few: the machine may be busy
TURBO = ("-ctk", "turbo4", "-ctv", "turbo4", "-fa", "on")
PROMPT = ("-p", "The capital of France is", "-n", "16", "--temp", "0", "-no-cnv", "--no-warmup", "-t", "2", "-lv", "4")
SHIFTED = ("-c", "256", "-n", "300", "--context-shift")
BUFFER = re.compile(r"(\S+) KV buffer size = *(?!0\.00)[\d.]+ MiB")
# a stock server, without the libraries that it does not need
CMAKELISTS = """
cmake_minimum_required(VERSION 3.18)
project(stock C CXX)
set(CMAKE_CXX_STANDARD 17)
add_subdirectory(llama.cpp/ggml ggml)
add_executable(ggml-rpc-server llama.cpp/tools/rpc/rpc-server.cpp)
target_link_libraries(ggml-rpc-server PRIVATE ggml)
"""


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of our programs, built with remote devices, apart from the build that others use."""
    work = {"TURBOTOOL_WORK": str(tmp_path_factory.mktemp("work"))}
    words = ("build", "--cmake-option", "GGML_RPC=ON", "--target", SERVER)
    return Path(document(*words, variables=work, timeout=BUILD_SECONDS)["bin_dir"])


@pytest.fixture(scope="module")
def stock(built: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a server made from upstream as it was released."""
    layout, source = find_layout(), tmp_path_factory.mktemp("stock")
    pick = ("git", "-C", str(layout.tree), "archive", read_lock(layout).upstream.tree, "ggml", "tools/rpc")
    packed = subprocess.run(pick, capture_output=True, timeout=SECONDS, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(source / "llama.cpp", filter="data")
    (source / "CMakeLists.txt").write_text(CMAKELISTS, encoding="utf-8")
    choices = ("-DCMAKE_BUILD_TYPE=Release", "-DGGML_RPC=ON", "-DBUILD_SHARED_LIBS=OFF", f"-B{source / 'build'}")
    for words in (["-G", "Ninja", "-S", str(source), *choices], ["--build", str(source / "build"), "--target", SERVER]):
        command = (str(shutil.which("cmake")), *words)
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return source / "build"


@pytest.fixture(scope="module")
def model() -> Path:
    return default_model(Session(find_layout(), Output(quiet=True)))


@contextmanager
def serving(folder: Path, log: Path) -> Iterator[str]:
    """The address of a server in a process of its own, which must live until nobody needs it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command: list[str | Path] = [folder / SERVER, "-H", "127.0.0.1", "-p", str(port), "-t", "2"]
    with log.open("wb") as sink:
        child = subprocess.Popen(
            command, stdout=sink, stderr=sink, env=clean_environment(UNCALIBRATED.environment), cwd=folder
        )
    try:
        deadline = time.monotonic() + SECONDS
        while child.poll() is None and not listens(port) and time.monotonic() < deadline:
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
        assert child.poll() is None, log.read_text(encoding="utf-8", errors="replace")[-2000:]
    finally:
        child.kill()
        child.wait()


def listens(port: int) -> bool:
    """Is a port taken? Without connecting: a server serves one client after the other."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def completed(folder: Path, model: Path, *words: str) -> tuple[str, str]:
    """The text that a model continues, and the log."""
    command: list[str | Path] = [folder / "llama-completion", "-m", model, *PROMPT, *words]
    env = clean_environment(UNCALIBRATED.environment)
    done = subprocess.run(command, capture_output=True, env=env, cwd=folder, timeout=SECONDS, check=False, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def alone(ours: Path, model: Path) -> str:
    return completed(ours, model, *TURBO)[0]


def test_a_remote_device_of_ours_keeps_the_cache_and_computes_the_same(
    ours: Path, model: Path, alone: str, tmp_path: Path
) -> None:
    with serving(ours, tmp_path / "server.log") as address:
        text, log = completed(ours, model, *TURBO, "--rpc", address, "-ngl", "99")
        shifted = completed(ours, model, *TURBO, *SHIFTED, "--rpc", address, "-ngl", "99")[0]
    assert BUFFER.findall(log) == [f"RPC0[{address}]"]
    assert "has no kernel" not in log
    assert text == alone
    assert shifted == completed(ours, model, *TURBO, *SHIFTED)[0]


@pytest.mark.parametrize(
    "pair", [TURBO, ("-ctk", "q8_0", "-ctv", "turbo3", "-fa", "on")], ids=["turbo4", "q8_0/turbo3"]
)
def test_with_a_stock_server_a_turbo_cache_stays_here_and_that_is_said(
    ours: Path, stock: Path, model: Path, tmp_path: Path, pair: tuple[str, ...]
) -> None:
    with serving(stock, tmp_path / "server.log") as address:
        text, log = completed(ours, model, *pair, "--rpc", address, "-ngl", "99")
    assert BUFFER.findall(log) == ["CPU"]
    assert "RPC0 has no kernel to write a cache" in log
    assert "invalid tensor type" not in (tmp_path / "server.log").read_text(encoding="utf-8")
    assert text.startswith("The capital of France is Paris")


def test_a_stock_server_runs_the_caches_that_it_knows(ours: Path, stock: Path, model: Path, tmp_path: Path) -> None:
    with serving(stock, tmp_path / "server.log") as address:
        words = ("-ctk", "q8_0", "-ctv", "q8_0", "-fa", "on", "--rpc", address, "-ngl", "99")
        text, log = completed(ours, model, *words)
    assert BUFFER.findall(log) == [f"RPC0[{address}]"]
    assert "has no kernel" not in log
    assert text.startswith("The capital of France is Paris")
