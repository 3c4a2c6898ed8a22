"""The class of a machine: what kernels print, what psutil says on each system, what a control group leaves."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from turbotool.build.key import cpu_identity
from turbotool.errors import ToolMissing
from turbotool.system import machine, process
from turbotool.system.cgroup import Groups

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


FREE = 5 << 30
NO_GROUPS = Groups(Path("/nowhere"), Path("/nowhere"))


def answers(
    monkeypatch: pytest.MonkeyPatch, system: str, affinity: Sequence[int] | None = None, cores: int | None = 4
) -> None:
    """psutil of another system: 4 cores with 8 threads, and no affinity of a process where `affinity` is None."""
    import psutil

    one = SimpleNamespace() if affinity is None else SimpleNamespace(cpu_affinity=lambda: list(affinity))
    fake = SimpleNamespace(
        Error=psutil.Error,
        Process=lambda: one,
        cpu_count=lambda logical=True: 8 if logical else cores,
        virtual_memory=lambda: SimpleNamespace(available=FREE),
    )
    monkeypatch.setitem(sys.modules, "psutil", fake)
    monkeypatch.setattr(platform, "system", lambda: system)


def test_the_name_of_a_cpu_is_the_kernels(tmp_path: Path) -> None:
    assert machine.read_machine(cpuinfo(tmp_path, TWO_CORES_FOUR_THREADS)).cpu == "Some CPU @ 2.00GHz"


def test_hyperthreads_are_not_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "Linux", affinity=(0, 1, 5))
    found = machine.read_machine(cpuinfo(tmp_path, TWO_CORES_FOUR_THREADS), NO_GROUPS)
    assert (found.cores, found.threads, found.usable) == (4, 8, 3)
    assert "4 cores, 8 threads (3 usable)" in machine.describe(found)


SYSCTL = """machdep.cpu.brand_string: Apple M2
hw.optional.floatingpoint: 1
hw.optional.neon: 1
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_I8MM: 1
hw.optional.arm.FEAT_SME: 0
"""


def test_macos_tells_its_cpu_by_sysctl_and_binds_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "Darwin")
    monkeypatch.setattr(process, "run", lambda words, **_: SimpleNamespace(output=SYSCTL))
    found = machine.read_machine(tmp_path / "none", NO_GROUPS)
    assert (found.cpu, found.features) == ("Apple M2", ("NEON", "DOTPROD", "I8MM"))
    assert (found.cores, found.threads, found.usable) == (4, 8, 8)
    assert machine.memory_free(NO_GROUPS) == FREE
    assert "arm.FEAT_SME" not in machine.cpu_flags(tmp_path / "none")
    without = cpu_identity(tmp_path / "none")
    monkeypatch.setattr(process, "run", lambda words, **_: SimpleNamespace(output=SYSCTL.replace("SME: 0", "SME: 1")))
    assert cpu_identity(tmp_path / "none") != without


def test_a_macos_without_sysctl_has_a_cpu_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ToolMissing("cannot start /usr/sbin/sysctl")

    answers(monkeypatch, "Darwin")
    monkeypatch.setattr(process, "run", missing)
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    found = machine.read_machine(tmp_path / "none", NO_GROUPS)
    assert (found.cpu, found.features) == ("arm", ())


@pytest.mark.parametrize(("affinity", "expected"), [((0, 1), 2), ((), 8)])
def test_windows_has_no_load_and_maybe_no_affinity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, affinity: Sequence[int], expected: int
) -> None:
    answers(monkeypatch, "Windows", affinity)
    monkeypatch.delattr(os, "getloadavg", raising=False)
    monkeypatch.setattr(platform, "processor", lambda: "Intel64 Family 6 Model 85 Stepping 7, GenuineIntel")
    found = machine.read_machine(tmp_path / "none", NO_GROUPS)
    assert found.cpu.startswith("Intel64 Family 6")
    assert (found.cores, found.threads, found.usable, found.features, found.load) == (4, 8, expected, (), None)


def test_what_a_system_does_not_tell_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing() -> None:
        raise sys.modules["psutil"].Error

    answers(monkeypatch, "Linux", cores=None)
    monkeypatch.setattr(sys.modules["psutil"], "virtual_memory", nothing)
    found = machine.read_machine(tmp_path / "none", NO_GROUPS)
    assert (found.features, found.cores) == ((), None)
    assert found.cpu
    assert machine.memory_free() is None
    assert " cores" not in machine.describe(found)


def test_this_machine_has_cpus_and_memory() -> None:
    found = machine.read_machine()
    assert 1 <= found.usable <= found.threads
    assert (machine.memory_free() or 0) > 0


def groups(folder: Path, mine: str, files: dict[str, str]) -> Groups:
    """Control groups as the kernel shows them."""
    (folder / "mine").write_text(mine, encoding="utf-8")
    for name, text in files.items():
        path = folder / "mounts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return Groups(folder / "mounts", folder / "mine")


TWO, ONE = "0::/a/b\n", "3:cpu,cpuacct:/a/b\n2:memory:/a/b\n0::/a/b\n"


@pytest.mark.parametrize(
    ("mine", "files", "expected"),
    [
        (TWO, {"a/b/cpu.max": "150000 100000\n", "a/cpu.max": "max 100000\n"}, 2),
        (TWO, {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 3),
        (TWO, {"cpu.max": "1000 100000\n"}, 1),
        (TWO, {"a/b/cpu.max": "9900000 100000\n"}, 8),
        (TWO, {"a/b/cpu.max": "nonsense"}, 8),
        (ONE, {"cpu/a/b/cpu.cfs_quota_us": "200000\n", "cpu/a/b/cpu.cfs_period_us": "100000\n"}, 2),
        (ONE, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ("0::/../elsewhere\n", {"cpu.max": "200000 100000\n"}, 2),
        ("", {}, 8),
    ],
)
def test_no_more_cpus_are_usable_than_the_control_group_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mine: str, files: dict[str, str], expected: int
) -> None:
    answers(monkeypatch, "Linux", range(8))
    assert machine.usable_cpus(groups(tmp_path, mine, files)) == expected


@pytest.mark.parametrize(
    ("mine", "files", "expected"),
    [
        (TWO, {"memory.max": "max", "memory.current": "7"}, FREE),
        (
            TWO,
            {"a/b/memory.max": "100", "a/b/memory.current": "70", "a/b/memory.stat": "file 50\ninactive_file 20"},
            50,
        ),
        (TWO, {"a/b/memory.max": "100", "a/b/memory.current": "170"}, 0),
        (TWO, {"a/b/memory.max": str(FREE * 9), "a/b/memory.current": "0"}, FREE),
        (
            ONE,
            {
                "memory/a/memory.limit_in_bytes": "100",
                "memory/a/memory.usage_in_bytes": "90",
                "memory/a/memory.stat": "inactive_file 1\ntotal_inactive_file 30\n",
            },
            40,
        ),
        (ONE, {"memory/memory.limit_in_bytes": "9223372036854771712", "memory/memory.usage_in_bytes": "90"}, FREE),
    ],
)
def test_no_more_memory_is_free_than_the_control_group_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mine: str, files: dict[str, str], expected: int
) -> None:
    answers(monkeypatch, "Linux")
    assert machine.memory_free(groups(tmp_path, mine, files)) == expected


def test_instruction_sets_have_the_names_that_people_use(tmp_path: Path) -> None:
    x86 = machine.read_machine(cpuinfo(tmp_path, TWO_CORES_FOUR_THREADS))
    assert x86.features == ("AVX2", "FMA", "F16C", "AVX-512F", "AVX-512VNNI")
    assert machine.read_machine(cpuinfo(tmp_path, ARM)).features == ("NEON", "DOTPROD", "I8MM")


def test_the_build_key_of_a_cpu_does_not_depend_on_the_order_of_its_flags(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"avx2 avx512_vnni avx512f f16c fma sse").hexdigest()[:12]
    assert cpu_identity(cpuinfo(tmp_path, TWO_CORES_FOUR_THREADS)).endswith(f" {digest}")
    shuffled = TWO_CORES_FOUR_THREADS.replace("sse fma", "fma sse")
    assert cpu_identity(cpuinfo(tmp_path, shuffled)).endswith(f" {digest}")
