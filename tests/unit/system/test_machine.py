"""The class of a machine, from what kernels of different architectures print."""

from __future__ import annotations

import hashlib
from pathlib import Path

from turbotool.build.key import cpu_identity
from turbotool.system import machine

X86 = """processor\t: 0
model name\t: Some CPU @ 2.00GHz
physical id\t: 0
core id\t\t: {core}
flags\t\t: sse fma avx2 avx512f avx512_vnni f16c
"""
TWO_CORES_FOUR_THREADS = "\n".join(X86.format(core=core) for core in (0, 1, 0, 1))
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\nCPU part\t: 0xd40\n\n"


def cpuinfo(folder: Path, text: str) -> Path:
    path = folder / "cpuinfo"
    path.write_text(text, encoding="utf-8")
    return path


def test_hyperthreads_are_not_cores(tmp_path: Path) -> None:
    found = machine.read_machine(cpuinfo(tmp_path, TWO_CORES_FOUR_THREADS))
    assert (found.cpu, found.cores) == ("Some CPU @ 2.00GHz", 2)


def test_instruction_sets_have_the_names_that_people_use(tmp_path: Path) -> None:
    x86 = machine.read_machine(cpuinfo(tmp_path, TWO_CORES_FOUR_THREADS))
    assert x86.features == ("AVX2", "FMA", "F16C", "AVX-512F", "AVX-512VNNI")
    assert machine.read_machine(cpuinfo(tmp_path, ARM)).features == ("NEON", "DOTPROD", "I8MM")


def test_a_system_without_cpuinfo_has_a_machine_all_the_same(tmp_path: Path) -> None:
    found = machine.read_machine(tmp_path / "none")
    assert (found.features, found.cores) == ((), None)
    assert found.cpu
    assert 1 <= found.usable <= found.threads


def test_the_build_key_of_a_cpu_does_not_depend_on_the_order_of_its_flags(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"avx2 avx512_vnni avx512f f16c fma sse").hexdigest()[:12]
    assert cpu_identity(cpuinfo(tmp_path, TWO_CORES_FOUR_THREADS)).endswith(f" {digest}")
    shuffled = TWO_CORES_FOUR_THREADS.replace("sse fma", "fma sse")
    assert cpu_identity(cpuinfo(tmp_path, shuffled)).endswith(f" {digest}")
