"""The machine that figures are measured on: its class, as far as it decides speed, and never its name."""

from __future__ import annotations

import hashlib
import os
import platform
import re
from dataclasses import asdict, dataclass
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# what the kernel calls it -> what people call it; the instruction sets that ggml has code for
FEATURES = {
    "avx": "AVX",
    "avx2": "AVX2",
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
    "asimddp": "DOTPROD",
    "i8mm": "I8MM",
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

    def as_json(self) -> dict[str, object]:
        return {**asdict(self), "features": list(self.features)}


def read_machine(cpuinfo: Path = CPUINFO) -> Machine:
    """This machine, now."""
    processors = _processors(cpuinfo)
    flags = _flags(processors)
    named = next((words["model name"] for words in processors if words.get("model name")), "")
    threads = os.cpu_count() or 1
    return Machine(
        cpu=named or platform.processor() or platform.machine(),
        features=tuple(dict.fromkeys(name for flag, name in FEATURES.items() if flag in flags)),
        cores=_physical_cores(processors),
        threads=threads,
        usable=usable_cpus(),
        system=f"{platform.system()} {platform.machine()}",
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


def usable_cpus() -> int:
    """How many logical CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_flags(cpuinfo: Path = CPUINFO) -> frozenset[str]:
    """The feature flags of the first CPU, in the kernel's words; empty where the system does not tell."""
    return _flags(_processors(cpuinfo))


def _flags(processors: list[dict[str, str]]) -> frozenset[str]:
    found = (words.get("flags") or words.get("Features") for words in processors)
    return frozenset(next(filter(None, found), "").split())


def _physical_cores(processors: list[dict[str, str]]) -> int | None:
    cores = {(words.get("physical id"), words["core id"]) for words in processors if "core id" in words}
    return len(cores) or None


def _processors(cpuinfo: Path) -> list[dict[str, str]]:
    """The paragraphs of /proc/cpuinfo, one a logical CPU; none where there is no such file."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    paragraphs = (block.splitlines() for block in text.split("\n\n") if block.strip())
    return [
        {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        for lines in paragraphs
    ]


def memory_free(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes of memory that a new program can get, or None where the system does not say."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
