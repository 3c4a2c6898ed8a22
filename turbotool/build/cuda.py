"""A CUDA toolkit: what a build needs of one, and one that is made of NVIDIA's PyPI packages (the extra `cuda`).

CMake's FindCUDAToolkit wants one root with bin, include and libraries without version in their names. The packages
share a root, but have neither such names nor lib64, where nvcc looks. nvcc takes the folder above its own for the root
and does not follow links to itself, so a folder of links serves.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from turbotool.errors import TurbotoolError
from turbotool.system import process

ORIGIN = "PyPI packages"
INSTALL = "python -m pip install 'turbotool[cuda]'"
# name: (where it is below a root, the package that brings it)
PARTS: Mapping[str, tuple[str, str]] = {
    "cicc": ("nvvm/bin/cicc*", "nvidia-nvvm"),
    "the runtime's headers": ("include/cuda_runtime.h", "nvidia-cuda-runtime"),
    "the headers crt/": ("include/crt/host_config.h", "nvidia-cuda-crt"),
    "the headers of CCCL": ("include/cccl/cub/cub.cuh", "nvidia-cuda-cccl"),
    "libcudart": ("lib/libcudart.so.*", "nvidia-cuda-runtime"),
    "cuBLAS": ("lib/libcublas.so.*", "nvidia-cublas"),
}
# A distribution may put cuBLAS beside its other libraries.
SYSTEM = (Path("/usr"), Path("/usr/local"))
CUBLAS = ("include/cublas_v2.h", "targets/*/include/cublas_v2.h")


@dataclass(frozen=True)
class Toolkit:
    """A root of links at `root` to what the packages at `packages` hold."""

    packages: Path
    root: Path

    @property
    def libraries(self) -> Path:
        return self.root / "lib64"

    def options(self, *, portable: bool) -> dict[str, str]:
        """CMake options of a build with it. Programs that stay on this machine also look for its libraries."""
        options = {
            "CMAKE_CUDA_COMPILER": str(self.root / "bin" / "nvcc"),
            "CUDAToolkit_ROOT": str(self.root),
            "GGML_CUDA_NO_VMM": "ON",  # it would be linked with the driver's libcuda, which no package has
            "GGML_CUDA_NCCL": "OFF",
        }
        return options if portable else options | {"CMAKE_INSTALL_RPATH": f"$ORIGIN;{self.libraries}"}

    def assemble(self) -> None:
        """Make the links afresh. The result depends on the packages alone, so that a killed run harms nothing."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.libraries.mkdir(parents=True)
        (self.root / "bin").mkdir()
        for program in (self.packages / "bin").iterdir():
            (self.root / "bin" / program.name).symlink_to(program)
        for folder in ("include", "nvvm"):
            (self.root / folder).symlink_to(self.packages / folder)
        (self.root / "lib").symlink_to("lib64")
        for library in (self.packages / "lib").iterdir():
            (self.libraries / library.name).symlink_to(library)
            plain = re.sub(r"(?<=\.so)(\.\d+)+$", "", library.name)
            if plain != library.name and not (self.packages / "lib" / plain).exists():
                (self.libraries / plain).symlink_to(library)


def toolkit_of(nvcc: Path, origin: str, builds: Path) -> Toolkit | None:
    """The toolkit to assemble in `builds` for an nvcc of that origin; None if it comes with one of its own."""
    return Toolkit(nvcc.parents[1], builds / "cuda-toolkit") if origin == ORIGIN else None


def package_places() -> Iterator[Path]:
    """Where the PyPI packages put nvcc: they share a folder for each major version, the newest comes first."""
    try:
        spec = importlib.util.find_spec("nvidia")
    except (ImportError, ValueError):
        return
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for root in sorted(Path(folder).glob("cu[0-9]*"), reverse=True):
            yield root / "bin" / ("nvcc.exe" if sys.platform == "win32" else "nvcc")


def defect(nvcc: Path, origin: str) -> str | None:
    """Why nothing can be built with an nvcc that runs: its toolkit is not whole. None if it is, or cannot be found."""
    if origin == ORIGIN:
        return _package_defect(nvcc.parents[1])
    top = toolkit_root(nvcc)
    if top is None or any(next(root.glob(header), None) for root in (top, *SYSTEM) for header in CUBLAS):
        return None
    return f"its toolkit {top} has no cuBLAS"


def _package_defect(root: Path) -> str | None:
    if not sys.platform.startswith("linux"):
        return f"a toolkit is made of {ORIGIN} on Linux only"
    lacking = [(name, package) for name, (pattern, package) in PARTS.items() if not next(root.glob(pattern), None)]
    if not lacking:
        return None
    names = ", ".join(f"{name} ({package})" for name, package in lacking)
    return f"the {ORIGIN} beside it lack {names}: {INSTALL}"


def toolkit_root(nvcc: Path) -> Path | None:
    """The root that nvcc itself uses, or None if it does not tell."""
    try:
        done = process.run([str(nvcc), "--dryrun", "-x", "cu", "-"], cwd=Path.cwd(), check=False, timeout=10)
    except (OSError, TurbotoolError):
        return None
    found = re.search(r"^#\$ TOP=(.+)$", done.output, re.MULTILINE)
    return Path(found[1].strip()).resolve() if found else None
