"""Which shared libraries the programs of a package need, where they look for them, and which Linux that takes.

LIEF reads ELF, Mach-O and PE alike; which symbols a Linux has is in auditwheel's table of manylinux policies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turbotool.build.platforms import Platform
from turbotool.errors import PackageError
from turbotool.system.extras import require_library

BESIDE = {"Linux": "$ORIGIN", "Darwin": "@loader_path"}
# What the drivers of a GPU bring, or what its maker lets only its own installer bring.
DRIVERS = {
    "cuda": r"libcuda\.so\.1|lib(cudart|cublas|cublasLt|nccl)\.so\.\d+|nvcuda\.dll|(cudart|cublas|cublasLt)64_\d+\.dll",
    "vulkan": r"libvulkan\.so\.1|vulkan-1\.dll",
}
SYSTEM = {
    # What even the smallest installation of a distribution holds.
    "Linux": r"lib(c|m|dl|rt|pthread|gcc_s|stdc\+\+)\.so\.\d|ld-linux[\w-]*\.so\.\d",
    "Darwin": r"/usr/lib/.*|/System/Library/.*",
    # Part of Windows, and the Visual C++ runtime that Microsoft distributes on its own.
    "Windows": r"(?i)(api-ms-win-.*|(kernel|user|advapi|shell|ole|ws2_|gdi|crypt)32|ucrtbase|ntdll|bcrypt|dbghelp|winmm"
    r"|secur32|vcruntime140(_1)?|msvcp140(_\w+)?)\.dll",
}


@dataclass(frozen=True)
class Binary:
    """One program or library: what it needs by name, where it looks first, and the symbol versions that it asks for.

    `macos` is the lowest version that a Mach-O file is for.
    """

    name: str
    needed: tuple[str, ...]
    search: tuple[str, ...]
    versions: frozenset[str] = frozenset()
    macos: str = ""


@dataclass(frozen=True)
class Needs:
    """What a package expects of a machine: libraries, and on Linux the lowest `glibc` and the manylinux `level`."""

    system: tuple[str, ...]
    drivers: tuple[str, ...]
    glibc: str = ""
    level: str = ""

    def __str__(self) -> str:
        level = f"; glibc {self.glibc} or newer ({self.level})" if self.glibc else ""
        return f"needs {', '.join([*self.system, *self.drivers]) or 'no library'}{level}"

    def as_json(self) -> dict[str, object]:
        found = {"system_libraries": list(self.system), "driver_libraries": list(self.drivers)}
        return {**found, "glibc": self.glibc, "manylinux": self.level} if self.glibc else {**found}


def require() -> None:
    """Raise ToolMissing unless the two libraries are installed."""
    require_library("lief>=0.15", "package", "the account of shared libraries needs")
    require_library("auditwheel>=6.4,<6.9", "package", "the account of shared libraries needs")


def read_binary(path: Path) -> Binary:
    """What the headers of an ELF, Mach-O or PE file say. Raises PackageError for any other file."""
    import lief

    # LIEF's own functions for one format return None for another one.
    binary: Any = lief.parse(path)
    if binary is None:
        raise PackageError(f"{path} is neither a program nor a shared library", hint="turbotool build")
    needed = tuple(str(name) for name in binary.libraries)
    if isinstance(binary, lief.ELF.Binary):
        kinds = (lief.ELF.DynamicEntryRunPath, lief.ELF.DynamicEntryRpath)
        search = [entry for entry in binary.dynamic_entries if isinstance(entry, kinds)]
        paths = tuple(str(getattr(entry, "runpath", "") or getattr(entry, "rpath", "")) for entry in search)
        needs = binary.symbols_version_requirement
        versions = frozenset(str(item.name) for need in needs for item in need.get_auxiliary_symbols())
        return Binary(path.name, needed, paths, versions)
    if isinstance(binary, lief.MachO.Binary):
        command = binary.build_version
        macos = ".".join(str(part) for part in command.minos[:2]) if command else ""
        return Binary(path.name, needed, tuple(str(item.path) for item in binary.rpaths), macos=macos)
    return Binary(path.name, needed, ())


def account(
    binaries: Sequence[Binary], ours: Iterable[str], platform: Platform, backend: str, max_glibc: str = ""
) -> Needs:
    """Where every needed library comes from: the package itself, the system or a driver.

    Raises PackageError if one comes from nowhere, if a program looks for libraries anywhere but beside itself, or if
    the package needs a newer glibc than `max_glibc`.
    """
    inside = set(ours)
    faults = [fault for binary in binaries for fault in _search_faults(binary, inside, platform)]
    patterns = {"system": SYSTEM[platform.system], "drivers": DRIVERS.get(backend, "(?!)")}
    used: dict[str, set[str]] = {kind: set() for kind in patterns}
    for binary in binaries:
        for name in (needed for needed in binary.needed if base_name(needed) not in inside):
            kind = next((kind for kind, pattern in patterns.items() if re.fullmatch(pattern, name)), None)
            if kind:
                used[kind].add(name)
            else:
                faults.append(f"{binary.name} needs {name}, which neither the package nor every such system has")
    glibc = _newest(binaries)
    if max_glibc and _number(glibc) > _number(max_glibc):
        guilty = [binary.name for binary in binaries if f"GLIBC_{glibc}" in binary.versions]
        faults.append(f"{', '.join(guilty)} need glibc {glibc}, newer than {max_glibc}: build on an older system")
    if faults:
        raise PackageError(
            "the package would not run elsewhere:\n" + "\n".join(faults), hint="correct these, then turbotool package"
        )
    level = manylinux(binaries, platform) if platform.system == "Linux" else ""
    return Needs(tuple(sorted(used["system"])), tuple(sorted(used["drivers"])), glibc, level)


def base_name(name: str) -> str:
    """`@rpath/libggml.dylib` as `libggml.dylib`."""
    return name.removeprefix("@rpath/").removeprefix("@loader_path/")


def _search_faults(binary: Binary, ours: set[str], platform: Platform) -> list[str]:
    wanted = BESIDE.get(platform.system)
    if wanted is None:
        return []  # Windows looks beside a program by itself
    wrong = [path for path in binary.search if path != wanted]
    if not binary.search and any(base_name(name) in ours for name in binary.needed):
        wrong.append("the system's folders")
    return [f"{binary.name} looks for libraries in '{path}' instead of '{wanted}'" for path in wrong]


def manylinux(binaries: Sequence[Binary], platform: Platform) -> str:
    """The oldest manylinux policy that has every symbol version asked for. Raises PackageError if none has."""
    from auditwheel.architecture import Architecture
    from auditwheel.libc import Libc
    from auditwheel.policy import WheelPolicies

    policies = WheelPolicies(libc=Libc.GLIBC, arch=Architecture(platform.processor))
    policy = policies.versioned_symbols_policy({binary.name: set(binary.versions) for binary in binaries})
    if policy.name == policies.linux.name:
        raise PackageError(
            "no manylinux policy has every symbol version that the programs ask for", hint="build on an older system"
        )
    return str(policy.name)


def _newest(binaries: Sequence[Binary]) -> str:
    """The glibc that has every symbol that is asked for, as `2.34`; '' if none is."""
    versions = {version.removeprefix("GLIBC_") for binary in binaries for version in binary.versions}
    return max((version for version in versions if re.fullmatch(r"2(\.\d+)+", version)), key=_number, default="")


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")) if version else ()
