"""A CUDA toolkit made of links to NVIDIA's PyPI packages, and toolkits that are not whole."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

import pytest
from fake_tools import fake_site, program, says

from turbotool.build import cuda
from turbotool.build.compile import prepare
from turbotool.build.cuda import INSTALL, ORIGIN, Toolkit, defect, toolkit_root
from turbotool.build.host import Choices
from turbotool.build.tools import find_tools
from turbotool.system.output import Output
from turbotool.system.session import Session

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the packages serve on Linux only")

BANNER = "Cuda compilation tools, release 13.0, V13.0.88"
FILES = (
    *("nvvm/bin/cicc", "bin/ptxas", "bin/crt/link.stub", "include/cuda_runtime.h", "include/crt/host_config.h"),
    *("include/cccl/cub/cub.cuh", "include/cublas_v2.h", "lib/libcudart.so.13", "lib/libcublas.so.13"),
    *("lib/libcublasLt.so.13", "lib/libcudart_static.a"),
)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the extra `cuda` installs, with an nvcc that tells its version."""
    root = tmp_path / "site packages/nvidia/cu13"
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    nvcc = says(root / "bin/nvcc", BANNER)
    monkeypatch.setattr(cuda, "package_places", lambda: iter([nvcc]))
    monkeypatch.setattr("turbotool.build.tools.USUAL_CUDA", str(tmp_path / "none"))
    return root


def telling_root(nvcc: Path, top: Path) -> Path:
    """An nvcc that tells its version and, asked for the commands of a compilation, its root."""
    return program(
        nvcc, f"case \"$*\" in *dryrun*) printf '#$ TOP=%s\\n' {shlex.quote(str(top))};; *) echo '{BANNER}';; esac"
    )


def test_the_root_has_what_cmake_and_nvcc_look_for(packages: Path, tmp_path: Path) -> None:
    toolkit = Toolkit(packages, tmp_path / "toolkit")
    toolkit.assemble()
    toolkit.assemble()  # an earlier one is no obstacle
    root = toolkit.root
    assert (root / "bin/nvcc").is_symlink()
    assert not (root / "bin").is_symlink(), "nvcc would take the packages for its root"
    for name in ("include/cublas_v2.h", "include/crt/host_config.h", "nvvm/bin/cicc", "bin/ptxas"):
        assert (root / name).read_text() == name
    for folder in ("lib", "lib64"):
        for name in ("libcudart", "libcublas", "libcublasLt"):
            assert (root / folder / f"{name}.so").read_text() == f"lib/{name}.so.13"
            assert (root / folder / f"{name}.so.13").exists()
        assert (root / folder / "libcudart_static.a").exists()


def test_each_missing_package_is_named_with_the_command(packages: Path) -> None:
    assert defect(packages / "bin/nvcc", ORIGIN) is None
    shutil.rmtree(packages / "nvvm")
    (packages / "lib/libcublas.so.13").unlink()
    found = str(defect(packages / "bin/nvcc", ORIGIN))
    assert "nvidia-nvvm" in found
    assert "nvidia-cublas" in found
    assert "nvidia-cuda-runtime" not in found
    assert found.endswith(INSTALL)


def test_an_nvcc_without_cublas_gives_way_to_the_packages(
    packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "SYSTEM", ())
    top = tmp_path / "cuda-13"
    top.mkdir()
    nvcc = telling_root(tmp_path / "bin/nvcc", top)
    assert toolkit_root(nvcc) == top
    tool = find_tools({"PATH": str(nvcc.parent)}, ["nvcc"])["nvcc"]
    assert tool.chosen is not None
    assert tool.chosen.path == str(packages / "bin/nvcc")
    assert f"its toolkit {top} has no cuBLAS" in tool.describe_search()

    (top / "targets/x86_64-linux/include").mkdir(parents=True)
    (top / "targets/x86_64-linux/include/cublas_v2.h").touch()
    tool = find_tools({"PATH": str(nvcc.parent)}, ["nvcc"])["nvcc"]
    assert tool.chosen is not None
    assert tool.chosen.path == str(nvcc)


def test_a_build_assembles_the_toolkit_before_cmake(packages: Path, tmp_path: Path) -> None:
    site = fake_site(tmp_path, "cuda").asking(choices=Choices(archs=("80", "89")))
    plan = site.plan()
    root = site.layout.builds / "cuda-toolkit"
    assert plan.options["CMAKE_CUDA_COMPILER"] == str(root / "bin/nvcc")
    assert plan.options["CUDAToolkit_ROOT"] == str(root)
    assert plan.options["CMAKE_CUDA_ARCHITECTURES"] == "80;89"
    assert (plan.options["GGML_CUDA_NO_VMM"], plan.options["GGML_CUDA_NCCL"]) == ("ON", "OFF")
    assert plan.options["CMAKE_INSTALL_RPATH"] == f"$ORIGIN;{root}/lib64"
    prepare(plan, Session(site.layout, Output(quiet=True)))
    assert (root / "bin/nvcc").exists()

    own = site.asking(options=(("GGML_CUDA_NO_VMM", "OFF"),)).plan()
    assert own.options["GGML_CUDA_NO_VMM"] == "OFF"


def test_a_portable_build_names_no_folder_of_this_machine(packages: Path, tmp_path: Path) -> None:
    plan = fake_site(tmp_path, "cuda").asking(choices=Choices(portable=True)).plan()
    assert plan.options["CMAKE_INSTALL_RPATH"] == "$ORIGIN"
