"""The CUDA toolkit and the GPUs of a machine, found with the standard library alone.

nvcc may come without cuBLAS, which then is where PyPI's packages put it, such as beside PyTorch. CMake wants one root
for both, so a folder of links is made of the two. nvcc takes the folder above its own for the root and does not follow
links to itself.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROBE_SECONDS = 60
USUAL = "/usr/local/cuda"
QUERY = ("name", "driver_version", "compute_cap", "memory.total")
# Where CMake looks for the driver's library, to link with it.
DRIVER = (
    "/usr/lib/*-linux-gnu/libcuda.so",
    "/usr/lib64/libcuda.so",
    "/usr/lib/libcuda.so",
    "/usr/local/lib/libcuda.so",
)


@dataclass(frozen=True)
class Gpu:
    """A GPU as nvidia-smi tells it; memory in MiB."""

    name: str
    driver: str
    compute_capability: str
    memory_mib: int


@dataclass(frozen=True)
class Toolkit:
    """nvcc, the root that CMake shall take, and where its libraries are; `driver`: CMake finds the driver's library."""

    nvcc: Path
    root: Path
    libraries: tuple[Path, ...]
    version: str
    cublas: bool
    driver: bool

    def options(self) -> dict[str, str]:
        """CMake options of a build whose programs find the libraries on this machine."""
        options = {
            "CMAKE_CUDA_COMPILER": str(self.nvcc),
            "CUDAToolkit_ROOT": str(self.root),
            "CMAKE_INSTALL_RPATH": ";".join(("$ORIGIN", *map(str, self.libraries))),
        }
        return options if self.driver else {**options, "GGML_CUDA_NO_VMM": "ON"}


def said(*words: str) -> str:
    """What a program prints, both streams; '' if it is not there, hangs or fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr if done.returncode == 0 else ""


def find_gpus() -> tuple[Gpu, ...]:
    """Every GPU that nvidia-smi lists."""
    rows = [line.split(", ") for line in said("nvidia-smi", f"--query-gpu={','.join(QUERY)}", *_CSV).splitlines()]
    return tuple(
        Gpu(row[0], row[1], row[2], int(row[3]))
        for row in rows
        if len(row) == len(QUERY) and row[3].isdigit() and _number(row[2])
    )


_CSV = ("--format=csv,noheader,nounits",)


def _number(word: str) -> bool:
    return re.fullmatch(r"\d+\.\d+", word) is not None


def architectures(gpus: Iterable[Gpu]) -> str:
    """CMAKE_CUDA_ARCHITECTURES for these GPUs and no others: machine code without PTX; '' if there are none."""
    return ";".join(dict.fromkeys(f"{gpu.compute_capability.replace('.', '')}-real" for gpu in gpus))


def find_toolkit(links: Path, env: Mapping[str, str], packages: Sequence[str] | None = None) -> Toolkit | None:
    """The toolkit of the first nvcc that runs, completed with cuBLAS by links in `links`; None if there is no nvcc.

    `packages` are the folders in which Python packages are looked for (default: those of this Python).
    """
    for nvcc in _candidates(env):
        if found := re.search(r"^Cuda compilation tools.*?, V?(\S+)$", said(str(nvcc), "--version"), re.MULTILINE):
            root = _root(nvcc)
            extra = None if _has_cublas(root) else _package(found[1], sys.path if packages is None else packages)
            if extra:
                return _described(links / "bin" / "nvcc", _joined(root, extra, links), found[1])
            return _described(nvcc, root, found[1])
    return None


def _described(nvcc: Path, root: Path, version: str) -> Toolkit:
    return Toolkit(nvcc, root, _libraries(root), version, _has_cublas(root), _has_driver(root))


def _candidates(env: Mapping[str, str]) -> list[Path]:
    named = [env.get("CUDACXX"), shutil.which("nvcc", path=env.get("PATH", ""))]
    roots = [env.get("CUDA_PATH"), env.get("CUDA_HOME"), USUAL]
    places = [*named, *(f"{root}/bin/nvcc" for root in roots if root)]
    return [Path(place) for place in dict.fromkeys(places) if place and Path(place).is_file()]


def _root(nvcc: Path) -> Path:
    """The root that nvcc itself uses; what is found may be a script that starts it."""
    top = re.search(r"^#\$ TOP=(.+)$", said(str(nvcc), "--dryrun", "-x", "cu", "-"), re.MULTILINE)
    return Path(top[1].strip()).resolve() if top else nvcc.resolve().parents[1]


def _folders(root: Path, *names: str) -> list[Path]:
    """The folders of these names in a root, with those of its targets, each once."""
    found = [path for name in names for path in (root / name, *sorted(root.glob(f"targets/*/{name}")))]
    return list({path.resolve(): path for path in reversed(found) if path.is_dir()}.values())[::-1]


def _libraries(root: Path) -> tuple[Path, ...]:
    return tuple(path for path in _folders(root, "lib64", "lib") if next(path.glob("lib*.so*"), None))


def _has_cublas(root: Path) -> bool:
    headers = any((path / "cublas_v2.h").is_file() for path in _folders(root, "include"))
    return headers and any(next(path.glob("libcublas.so*"), None) for path in _folders(root, "lib64", "lib"))


def _has_driver(root: Path) -> bool:
    stubs = any((path / "libcuda.so").exists() for path in _folders(root, "lib64/stubs", "lib/stubs"))
    return stubs or any(next(Path("/").glob(pattern.lstrip("/")), None) for pattern in DRIVER)


def _package(version: str, packages: Sequence[str]) -> Path | None:
    """The PyPI packages' root with cuBLAS of nvcc's major version."""
    major = version.split(".", 1)[0]
    places = (root for folder in packages for root in Path(folder or ".").glob(f"nvidia/cu{major}"))
    return next((root for root in places if _has_cublas(root)), None)


def _joined(root: Path, extra: Path, links: Path) -> Path:
    """A root of links to what both hold; the first one wins. Made afresh."""
    shutil.rmtree(links, ignore_errors=True)
    machine = next((path.name for path in sorted(root.glob("targets/*")) if path.is_dir()), "")
    inner = links / "targets" / machine if machine else links
    for name, names in (("include", ("include",)), ("lib", ("lib64", "lib"))):
        (inner / name).mkdir(parents=True)
        for folder in [path for base in (root, extra) for path in _folders(base, *names)]:
            for item in sorted(folder.iterdir()):
                _link(inner / name / item.name, item)
                plain = re.sub(r"(?<=\.so)(\.\d+)+$", "", item.name)  # packages have no name without version
                _link(inner / name / plain, item)
    (links / "bin").mkdir(parents=True)
    for item in sorted((root / "bin").iterdir()):
        _link(links / "bin" / item.name, item)
    _link(links / "nvvm", root / "nvvm")
    for name, target in (("include", inner / "include"), ("lib", inner / "lib"), ("lib64", inner / "lib")):
        _link(links / name, target)
    return links


def _link(link: Path, target: Path) -> None:
    if not os.path.lexists(link):
        link.symlink_to(target)
