"""The CUDA kernels: run on the CPU behind a shim, and compiled with nvcc where there is one. No GPU is used."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import document

from turbotool.build.backends import BACKENDS
from turbotool.build.cuda import Toolkit, toolkit_of
from turbotool.build.host import Choices
from turbotool.build.tools import Candidate, find_tools
from turbotool.layout import find_layout
from turbotool.system.machine import usable_cpus

pytestmark = pytest.mark.slow

HERE = Path(__file__).resolve().parent
PATCHES = HERE.parents[1] / "patches"
OVERLAY = PATCHES / "overlay"
SECONDS = 3600  # the machine may be busy with other things
BLOCKS = 100_000
TYPES = ("turbo2", "turbo3", "turbo4")
# One instance of flash attention for each kind of pair; all of them would take minutes more.
INSTANCES = ("turbo4-turbo4", "q8_0-turbo3", "f16-turbo4")


def run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def tree() -> Path:
    """The vendored tree with the series applied."""
    document("patch", "apply", timeout=SECONDS)
    return find_layout().tree


@pytest.fixture(scope="module")
def host_report(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What tests/native/cuda/host.cpp says."""
    cc, cxx = shutil.which("cc"), shutil.which("c++")
    if not cc or not cxx or sys.platform == "win32":
        pytest.skip("needs cc and c++, and POSIX contexts")
    folder = tmp_path_factory.mktemp("host")
    overlay = [OVERLAY / "ggml/include", OVERLAY / "ggml/src", OVERLAY / "ggml/src/ggml-cuda", OVERLAY / "tests"]
    include = [f"-I{path}" for path in (HERE / "cuda", *overlay, tree / "ggml/include", tree / "ggml/src")]
    plain = ["-O2", "-ffp-contract=off", "-U_FORTIFY_SOURCE"]
    run(cc, "-std=c11", *plain, *include, "-c", OVERLAY / "ggml/src/ggml-turbo.c", "-o", folder / "reference.o")
    run(
        cxx, "-std=c++17", "-w", *plain, *include, HERE / "cuda/host.cpp", folder / "reference.o", "-o", folder / "host"
    )
    return run(folder / "host", str(BLOCKS)).splitlines()


def test_every_kernel_agrees_with_the_reference(host_report: list[str]) -> None:
    assert [line for line in host_report if not line.startswith("ok: ")] == []
    assert len(host_report) == 23 * len(TYPES)
    for name in TYPES:
        assert f"ok: {name} quantizes {BLOCKS} random and adversarial blocks: 0 differ" in host_report


def touched() -> list[str]:
    """The CUDA files of upstream that the series changes."""
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(PATCHES.glob("*.patch")))
    return sorted(set(re.findall(r"^\+\+\+ b/ggml/src/ggml-cuda/(\S+\.cu)$", text, re.MULTILINE)))


@pytest.fixture(scope="module")
def nvcc() -> Candidate:
    tool = find_tools(os.environ, ["nvcc"])["nvcc"]
    if tool.chosen is None:
        pytest.skip(f"no nvcc with a whole toolkit: {tool.describe_search()}")
    return tool.chosen


@pytest.fixture(scope="module")
def toolkit(nvcc: Candidate, tmp_path_factory: pytest.TempPathFactory) -> Toolkit | None:
    made = toolkit_of(Path(nvcc.path), nvcc.origin, tmp_path_factory.mktemp("toolkit"))
    if made:
        made.assemble()
    return made


PTXAS = re.compile(
    r"Function properties for (\S+)\n\s*(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\n"
    r".*?Used (\d+) registers"
)


@dataclass(frozen=True)
class Kernel:
    """What ptxas says of a kernel; bytes apart from registers."""

    name: str
    stack: int
    spilled: int
    registers: int


@pytest.fixture(scope="module")
def kernels(
    nvcc: Candidate, toolkit: Toolkit | None, tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Kernel]:
    """Every kernel of the files that the series touches, compiled by upstream's own build files."""
    folder = tmp_path_factory.mktemp("cuda")
    choices = Choices(archs=("89",))
    options = BACKENDS["cuda"].options(find_tools(os.environ, ["nvcc"]), choices)
    if toolkit:
        options |= toolkit.options(portable=False)
    if ccache := shutil.which("ccache"):
        options["CMAKE_CUDA_COMPILER_LAUNCHER"] = ccache
    words = [f"-D{name}={value}" for name, value in {**options, "CMAKE_BUILD_TYPE": "Release"}.items()]
    env = {**os.environ, "CUDAFLAGS": "-Xptxas=-v", "CCACHE_BASEDIR": str(folder)}
    run("cmake", "-G", "Ninja", "-S", tree, "-B", folder, *words, "-DLLAMA_USE_PREBUILT_UI=OFF", "-DGIT_EXE=", env=env)
    names = [*touched(), "turbo.cu", *(f"fattn-vec-instance-{pair}.cu" for pair in INSTANCES)]
    names.append("template-instances/fattn-vec-instance-q8_0-q8_0.cu")  # upstream's, to compare with
    objects = [f"ggml/src/ggml-cuda/CMakeFiles/ggml-cuda.dir/{name}.o" for name in names]
    said = run("ninja", "-j", str(usable_cpus()), "-C", folder, *objects, env=env)
    return [
        Kernel(found[1], int(found[2]), int(found[3]) + int(found[4]), int(found[5])) for found in PTXAS.finditer(said)
    ]


def test_no_kernel_of_ours_uses_local_memory(kernels: list[Kernel]) -> None:
    ours = [kernel for kernel in kernels if "k_turbo_" in kernel.name]
    assert len({re.sub(r"\d+block_turbo\d.*", "", kernel.name) for kernel in ours}) >= 5
    assert [kernel for kernel in ours if kernel.stack or kernel.spilled] == []


def test_flash_attention_with_turbo_types_spills_no_more_than_upstreams(kernels: list[Kernel]) -> None:
    attention = [kernel for kernel in kernels if "flash_attn_ext_vec" in kernel.name]
    ours = [kernel for kernel in attention if re.search(r"L(9ggml_type|S\d*_)10[0-2]E", kernel.name)]
    upstreams = [kernel for kernel in attention if kernel not in ours]
    assert len(ours) == len(INSTANCES) * len(upstreams) > 0
    assert max(kernel.spilled for kernel in ours) <= max(kernel.spilled for kernel in upstreams)
    assert max(kernel.stack for kernel in ours) <= max(kernel.stack for kernel in upstreams)


@pytest.fixture(scope="module")
def compile_ptx(
    nvcc: Candidate, toolkit: Toolkit | None, tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Path], dict[str, str]]:
    """The PTX of each kernel of a file, by name, compiled with ggml-cuda's flags."""
    source = tree / "ggml/src/ggml-cuda"
    include = [f"-I{path}" for path in (source, source.parent, source.parents[1] / "include")]
    flags = ["-std=c++17", "-O3", "-use_fast_math", "-extended-lambda", "-arch=compute_89", "-DGGML_CUDA_NO_VMM"]
    program = toolkit.root / "bin/nvcc" if toolkit else nvcc.path
    target = tmp_path_factory.mktemp("ptx") / "kernels.ptx"

    def compile_file(path: Path) -> dict[str, str]:
        run(program, *flags, *include, "-ptx", path, "-o", target)
        entries = re.split(r"^(?:\.visible |\.weak )?\.entry ", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
        return {entry.split("(", 1)[0]: entry for entry in entries[1:]}

    return compile_file


def local_in_loops(kernel: str) -> int:
    """How many instructions in loops access local memory."""
    lines = kernel.splitlines()
    labels = {line.rstrip(":"): number for number, line in enumerate(lines) if re.match(r"\$L\w+:", line)}
    jumps = [
        (number, found[1]) for number, line in enumerate(lines) if (found := re.search(r"\bbra\S*\s+(\S+);", line))
    ]
    loops = [(labels[label], number) for number, label in jumps if labels[label] < number]
    local = [number for number, line in enumerate(lines) if re.search(r"\b(?:ld|st)\.local", line)]
    return sum(any(first <= number <= last for first, last in loops) for number in local)


def attention_kernels(kernels: dict[str, str]) -> dict[tuple[str, ...], str]:
    """The vector kernels by head size, tokens and soft-capping."""
    names = {name: re.search(r"flash_attn_ext_vecILi(\d+)ELi(\d+)E.*Lb([01])E", name) for name in kernels}
    return {found.groups(): kernels[name] for name, found in names.items() if found}


def test_the_loop_over_the_cache_uses_no_more_local_memory_than_upstreams(
    compile_ptx: Callable[[Path], dict[str, str]], tree: Path, tmp_path: Path
) -> None:
    instances = tree / "ggml/src/ggml-cuda/template-instances"
    template = (instances / "fattn-vec-instance-turbo.cu.in").read_text(encoding="utf-8")
    ours = tmp_path / "turbo4-turbo4.cu"
    ours.write_text(re.sub(r"@TURBO_[KV]@", "TURBO4", template), encoding="utf-8")
    upstreams = attention_kernels(compile_ptx(instances / "fattn-vec-instance-q8_0-q8_0.cu"))
    found = {key: local_in_loops(kernel) for key, kernel in attention_kernels(compile_ptx(ours)).items()}
    assert found == {key: local_in_loops(kernel) for key, kernel in upstreams.items()}
    assert {(size, tokens) for (size, tokens, _), count in found.items() if count} == {("128", "2"), ("256", "2")}


def test_the_quantizer_rounds_once_and_keeps_denormals(
    compile_ptx: Callable[[Path], dict[str, str]], tree: Path
) -> None:
    """No contraction, no approximation and no flush to zero in PTX, although ggml-cuda is compiled with fast math."""
    kernels = compile_ptx(tree / "ggml/src/ggml-cuda/turbo.cu")
    quantizers = [kernel for name, kernel in kernels.items() if re.match(r"\w*k_turbo_(set_rows|cpy_f32_q)", name)]
    assert len(quantizers) == 9
    for kernel in quantizers:
        arithmetic = re.findall(r"\t((?:add|sub|mul|div|sqrt|rcp|fma|mad|neg|abs|ex2|rsqrt)\.[\w.]*f32)", kernel)
        assert set(arithmetic) == {"add.rn.f32", "sub.rn.f32", "mul.rn.f32", "div.rn.f32", "sqrt.rn.f32"}
