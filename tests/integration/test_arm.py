"""The ARM kernels: cross-compiled, run under qemu, compared with the reference and with upstream's one-row path."""

from __future__ import annotations

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
# ggml with its two test programs, without the libraries above it
CMAKELISTS = """
cmake_minimum_required(VERSION 3.18)
project(arm C CXX)
set(CMAKE_CXX_STANDARD 17)
add_subdirectory(${LLAMA}/ggml ggml)
foreach(name test-turbo test-backend-ops)
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
# The oldest ARM that runs 64-bit code, and one with dot products of bytes.
ARCHITECTURES = ("armv8-a", "armv8.2-a+dotprod+fp16")
ATTENTION = (
    r"hsk=64,hsv=64,nh=4,nr23=\[[14],1\],kv=512,nb=(1|75),mask=1,sinks=1.*type_K=(turbo|q8_0|q4_0|q5_0)"
    r"|hsk=64,.*nb=3,.*type_K=turbo"
)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def programs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the two programs, built for one ARM architecture from the patched tree."""
    if not shutil.which(CHOICES["CMAKE_C_COMPILER"]) or not shutil.which(EMULATOR[0]):
        pytest.skip(f"needs {PREFIX}-g++ and {EMULATOR[0]}: apt-get install g++-aarch64-linux-gnu qemu-user")
    document("patch", "apply", timeout=SECONDS)
    source, build = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("build")
    (source / "CMakeLists.txt").write_text(CMAKELISTS, encoding="utf-8")
    choices = {**CHOICES, "GGML_CPU_ARM_ARCH": request.param, "LLAMA": find_layout().tree}
    flags = [f"-D{name}={value}" for name, value in choices.items()]
    run("cmake", "-G", "Ninja", "-S", source, "-B", build, *flags)
    run("cmake", "--build", build, "--target", "test-turbo", "test-backend-ops")
    return build


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def test_the_quantizer_gives_the_reference_bytes_on_arm(programs: Path) -> None:
    output = run(*EMULATOR, programs / "test-turbo")
    for name in ("turbo2", "turbo3", "turbo4"):
        assert f"{name} CPU quantizer gives the reference's bytes for 100000 blocks: 0 differ" in output
    assert output.endswith("all ok\n")


def test_attention_on_arm_matches_the_one_row_path(programs: Path) -> None:
    output = run(*EMULATOR, programs / "test-backend-ops", "-b", "CPU", "-o", "FLASH_ATTN_EXT", "-p", ATTENTION)
    assert "1/1 backends passed" in output
    assert all(f"type_K={name}," in output for name in ("turbo2", "turbo3", "turbo4", "q8_0", "q4_0"))
