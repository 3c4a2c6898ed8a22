"""The ARM kernels: cross-compiled, run under qemu, compared with the reference and with upstream's one-row path."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from command_line import document

from turbotool.layout import find_layout

pytestmark = pytest.mark.slow

PREFIX = "aarch64-linux-gnu"
EMULATOR = ("qemu-aarch64", "-L", f"/usr/{PREFIX}")
SECONDS = 1200
# ggml with the programs that are run, without the libraries above it
CMAKELISTS = """
cmake_minimum_required(VERSION 3.18)
project(arm C CXX)
set(CMAKE_CXX_STANDARD 17)
add_subdirectory(${LLAMA}/ggml ggml)
foreach(name test-turbo test-backend-ops test-attention-speed)
    add_executable(${name} ${LLAMA}/tests/${name}.cpp)
    target_include_directories(${name} PRIVATE ${LLAMA}/ggml/src)
    target_link_libraries(${name} PRIVATE ggml)
endforeach()
"""
CHOICES = {
    "CMAKE_BUILD_TYPE": "Release",
    "CMAKE_SYSTEM_NAME": "Linux",
    "CMAKE_SYSTEM_PROCESSOR": "aarch64",
    "CMAKE_C_COMPILER": f"{PREFIX}-gcc",
    "CMAKE_CXX_COMPILER": f"{PREFIX}-g++",
    "CMAKE_C_FLAGS": "-w",
    "CMAKE_CXX_FLAGS": "-w",
    "BUILD_SHARED_LIBS": "OFF",
    "GGML_NATIVE": "OFF",
    "GGML_OPENMP": "OFF",
}
# The oldest ARM that runs 64-bit code, one with dot products of bytes, and one with products of matrices of bytes. With
# each the instructions for a cell of turbo4, heads of 64 values, three query heads: a tenth more than GCC 12 needs.
WITH_I8MM = "armv8.6-a"
ARCHITECTURES = {"armv8-a": 360, "armv8.2-a+dotprod+fp16": 255, WITH_I8MM: 240}
# Processes that run tests side by side share out the architectures: an emulated program keeps one core busy.
BESIDE = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in ARCHITECTURES]
BLOCKS = 10_000  # a tenth of what is compared without an emulator
ATTENTION_ONCE = "--types turbo4 --heads 64 --groups 3 --heads-kv 1 --depths 512 --mib 1"
ATTENTION = (
    r"hsk=64,hsv=64,nh=4,nr23=\[[14],1\],kv=512,nb=(1|75),mask=1,sinks=1.*type_K=(turbo|q8_0|q4_0|q5_0)"
    r"|hsk=64,.*nb=3,.*type_K=turbo"
)


@pytest.fixture(scope="module", params=BESIDE)
def programs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs, built for one ARM architecture from the patched tree."""
    if not shutil.which(CHOICES["CMAKE_C_COMPILER"]) or not shutil.which(EMULATOR[0]):
        pytest.skip(f"needs {PREFIX}-g++ and {EMULATOR[0]}: apt-get install g++-aarch64-linux-gnu qemu-user")
    document("patch", "apply", timeout=SECONDS)
    source, build = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("build")
    (source / "CMakeLists.txt").write_text(CMAKELISTS, encoding="utf-8")
    choices = {**CHOICES, "GGML_CPU_ARM_ARCH": request.param, "LLAMA": find_layout().tree}
    flags = [f"-D{name}={value}" for name, value in choices.items()]
    run("cmake", "-G", "Ninja", "-S", source, "-B", build, *flags)
    run("cmake", "--build", build, "--target", "test-turbo", "test-backend-ops", "test-attention-speed")
    return build


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def test_the_quantizer_gives_the_reference_bytes_on_arm(programs: Path, request: pytest.FixtureRequest) -> None:
    if request.node.callspec.params["programs"] == WITH_I8MM:
        pytest.skip("minutes of emulation: only attention multiplies matrices of bytes, and is compared below")
    output = run(*EMULATOR, programs / "test-turbo", "--blocks", str(BLOCKS))
    for name in ("turbo2", "turbo3", "turbo4"):
        assert f"{name} CPU quantizer gives the reference's bytes for {BLOCKS} blocks: 0 differ" in output
    assert output.endswith("all ok\n")


def test_attention_on_arm_matches_the_one_row_path(programs: Path) -> None:
    output = run(*EMULATOR, programs / "test-backend-ops", "-b", "CPU", "-o", "FLASH_ATTN_EXT", "-p", ATTENTION)
    assert "1/1 backends passed" in output
    assert all(f"type_K={name}," in output for name in ("turbo2", "turbo3", "turbo4", "q8_0", "q4_0"))


def count_instructions(program: Path, plugin: Path, rounds: int) -> float:
    """Instructions for each cell that `rounds` rounds and what comes before them take, less those of the program."""
    counts = plugin.with_suffix(".txt")
    options = [*ATTENTION_ONCE.split(), "--rounds", str(rounds)]
    command = [*EMULATOR, "-plugin", f"{plugin},out={counts}", str(program), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if "API version" in done.stderr:
        pytest.skip("this qemu takes plugins of another version of its interface")
    assert done.returncode == 0, done.stderr[-4000:]
    shape = json.loads(done.stdout)
    lines = (line.split(" ", 1) for line in counts.read_text(encoding="utf-8").splitlines())
    total = sum(int(count) for count, name in lines if name != "main" and "attention" not in name)
    return total / int(shape["layers"] * shape["depth"])


def test_attention_on_arm_takes_no_more_instructions_than_it_did(
    programs: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    plugin = tmp_path / "instructions.so"
    source = find_layout().root / "ci" / "instructions.c"
    run("gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o", plugin, source)
    program = programs / "test-attention-speed"
    # the difference of two numbers of rounds is one round
    one_round = count_instructions(program, plugin, 2) - count_instructions(program, plugin, 1)
    most = ARCHITECTURES[request.node.callspec.params["programs"]]
    assert most / 2 < one_round <= most
