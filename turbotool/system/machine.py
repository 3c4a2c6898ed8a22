"""The machine that figures are measured on: its class, as far as it decides speed, and never its name."""

from __future__ import annotations

import hashlib
import math
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from turbotool.errors import TurbotoolError
from turbotool.system import process
from turbotool.system.cgroup import Groups, cpu_limit, memory_left

CPUINFO = Path("/proc/cpuinfo")
GROUPS = Groups()
# what the kernel of Linux or macOS calls it -> what people call it; the instruction sets that kernels are written for
FEATURES = {
    "avx": "AVX",
    "avx1_0": "AVX",
    "avx2": "AVX2",
    "avx2_0": "AVX2",
    "fma": "FMA",
    "f16c": "F16C",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX-512F",
    "avx512bw": "AVX-512BW",
    "avx512_vbmi": "AVX-512VBMI",
    "avx512vbmi": "AVX-512VBMI",
    "avx512_vnni": "AVX-512VNNI",
    "avx512_bf16": "AVX-512BF16",
    "amx_int8": "AMX-INT8",
    "asimd": "NEON",
    "neon": "NEON",
    "asimddp": "DOTPROD",
    "arm.FEAT_DotProd": "DOTPROD",
    "i8mm": "I8MM",
    "arm.FEAT_I8MM": "I8MM",
    "sve": "SVE",
    "sve2": "SVE2",
}


@dataclass(frozen=True)
class Machine:
    """Physical `cores` (None if unknown), logical `threads`, of which this process may use `usable`.

    `load` is the number of threads that wanted a CPU in the minute before (None if unknown): other work distorts speed.
    """

    cpu: str
    features: tuple[str, ...]
    cores: int | None
    threads: int
    usable: int
    system: str
    load: float | None


def read_machine(cpuinfo: Path = CPUINFO, groups: Groups = GROUPS) -> Machine:
    """This machine, now."""
    import psutil

    name, flags = _described(cpuinfo)
    return Machine(
        cpu=name or platform.processor() or platform.machine(),
        features=tuple(dict.fromkeys(name for flag, name in FEATURES.items() if flag in flags)),
        cores=psutil.cpu_count(logical=False),
        threads=_logical_cpus(),
        usable=usable_cpus(groups),
        system=f"{platform.system()} {platform.machine()}",
        # psutil has one for Windows too, which counts from the first question on and answers that one with 0
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    )


def describe(machine: Machine) -> str:
    """`Some CPU, 8 cores, 16 threads, AVX2 FMA, Linux x86_64`."""
    cores = [f"{machine.cores} cores"] if machine.cores else []
    usable = f" ({machine.usable} usable)" if machine.usable < machine.threads else ""
    features = [" ".join(machine.features)] if machine.features else []
    return ", ".join([machine.cpu, *cores, f"{machine.threads} threads{usable}", *features, machine.system])


def kin(machine: Machine) -> str:
    """Names machines whose CPUs compute the same to the last bit: equal processors that use as many threads."""
    words = (machine.cpu, *machine.features, machine.system, str(machine.usable))
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:8]


def usable_cpus(groups: Groups = GROUPS) -> int:
    """How many logical CPUs this process may keep busy: those that it may run on, and no more than its group's share.

    macOS does not bind processes to CPUs. A share that is no whole number is rounded up.
    """
    import psutil

    affinity = getattr(psutil.Process(), "cpu_affinity", None)
    # Windows names none to a process whose threads run on several groups of 64 CPUs
    mine = (len(affinity()) if affinity else 0) or _logical_cpus()
    limit = cpu_limit(groups)
    return max(1, min(mine, math.ceil(limit))) if limit is not None else mine


def memory_free(groups: Groups = GROUPS) -> int | None:
    """Bytes of memory that a new program can get without swapping, or None where the system does not say."""
    import psutil

    try:
        available = psutil.virtual_memory().available
    except (OSError, psutil.Error):
        return None
    left = memory_left(groups)
    return available if left is None else min(available, left)


def cpu_flags(cpuinfo: Path = CPUINFO) -> frozenset[str]:
    """The feature flags of the first CPU, in the kernel's words; empty where the system does not tell.

    psutil has no counterpart: they come from /proc/cpuinfo on Linux and from sysctl on macOS.
    """
    return _described(cpuinfo)[1]


def _logical_cpus() -> int:
    import psutil

    return psutil.cpu_count() or 1


def _described(cpuinfo: Path) -> tuple[str, frozenset[str]]:
    """Name and feature flags of the CPU as far as the system tells them: '' and none where it does not."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return _by_sysctl() if platform.system() == "Darwin" else ("", frozenset())
    lines = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in text.splitlines())]
    name = next((value for word, value in lines if word == "model name" and value), "")
    return name, frozenset(
        next((value for word, value in lines if word in ("flags", "Features") and value), "").split()
    )


def _by_sysctl() -> tuple[str, frozenset[str]]:
    try:
        said = process.run(["/usr/sbin/sysctl", "machdep.cpu.brand_string", "hw.optional"], cwd=Path("/"), timeout=10)
    except TurbotoolError:
        return "", frozenset()
    values = dict(line.split(": ", 1) for line in said.output.splitlines() if ": " in line)
    flags = (name.removeprefix("hw.optional.") for name, value in values.items() if value == "1")
    return values.get("machdep.cpu.brand_string", ""), frozenset(flags)
