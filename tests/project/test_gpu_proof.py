"""The proof on a machine with a GPU: what its pack holds, and how stages run, fail and are told, with fake tools."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gpu_figures as figures
import gpu_pack
import gpu_toolkit
import pytest
from fake_tools import program, says
from gpu_pack import Ingredients, is_kept, make_pack, requirements
from gpu_proof import STAGES, find, plan
from gpu_stage import NOT_RUN, PASSED, TIMED_OUT, Found, Printed, Stage, run_stage, run_stages
from processes import is_alive
from tiny_series import Project

from turbotool.layout import find_layout
from turbotool.upstream.lock import read_lock
from turbotool.verify.registry import CHECKS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the proof runs on Linux")

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
TYPES = ("turbo2", "turbo3", "turbo4")
NEED_NUMPY = ["calibrated-biases", "head-size-guard", "graph-budget"]
NINJA = """
if [ "$1" = --version ]; then echo 1.99.0; exit; fi
mkdir -p "$2/bin"
echo "[1/2] Building x.o"
cp "$FAKES"/programs/* "$2/bin"
echo "[2/2] Linking bin/x"
printf '# ninja log v5\\n0\\t1500\\t1\\tx.o\\tab\\n1500\\t1600\\t1\\tbin/x\\tcd\\n' > "$2/.ninja_log"
"""
CMAKE = """
if [ "$1" = --version ]; then echo "cmake version 3.99.1"; exit; fi
printf '%s\\n' "$@" > "$FAKES/cmake.txt"
mkdir -p "$4"
touch "$4/build.ninja"
echo "-- Using CMAKE_CUDA_ARCHITECTURES=90-real CMAKE_CUDA_ARCHITECTURES_NATIVE="
"""
NVCC = """
echo "$@" >> "$FAKES/nvcc.txt"
if [ "$1" = --version ]; then echo "Cuda compilation tools, release 13.0, V13.0.88"; exit; fi
[ "$1" != --dryrun ] || echo '#$ TOP='"$FAKES/toolkit" >&2
"""
TURBOTOOL = """
import json, sys
checks = [{"name": "kld-turbo4", "ok": True, "skipped": False}]
print(json.dumps({"ok": True, "asked": sys.argv[1:], "checks": checks}))
"""
BACKEND = """device CUDA0: NVIDIA H200
ok: CUDA0 turbo4 SET_ROWS from f32: 3 of 100023 blocks differ
ok: CUDA0 turbo4 GET_ROWS to f32: 0 of 6401472 values differ
unsupported: CUDA0 turbo4 CPY to bf16
all ok
"""


def cases(result: str = "OK") -> str:
    """What test-backend-ops prints if one case of each type and operation ends like this, with its colours."""
    names = gpu_pack.check_facts()["operations"]["names"]
    return "".join(f"  {op}(type={kind},ne=[64,1]): \x1b[1;32m{result}\x1b[0m\n" for op in names for kind in TYPES)


def wheels(folder: Path, version: str, numpy: bool) -> list[str]:
    """In place of downloads: a ninja."""
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "ninja-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("ninja-1.data/scripts/ninja", f"#!/bin/sh\n{NINJA}")
    return ["ninja-1-py3-none-any.whl"]


@pytest.fixture
def given(patched: Project, tmp_path: Path) -> Ingredients:
    """A tiny tree and a tiny model."""
    for name in ("LICENSE", "NOTICE"):
        (patched.layout.root / name).write_text("MIT\n")
    model = tmp_path / "tiny.gguf"
    model.write_bytes(b"GGUF")
    return Ingredients(patched.layout, patched.layout.tree, model, [VERSION])


@pytest.fixture
def pack(given: Ingredients, tmp_path: Path) -> Path:
    """A pack whose turbotool prints a document whatever it is asked, beside a folder of tools and programs."""
    folder = tmp_path / "a pack"
    make_pack(folder, given, fetch=wheels)
    (folder / "turbotool/__main__.py").write_text(TURBOTOOL)
    tools, programs = tmp_path / "fakes/bin", tmp_path / "fakes/programs"
    for place in (tools, programs):
        place.mkdir(parents=True)
    program(tools / "cmake", CMAKE)
    program(tools / "nvcc", NVCC)
    says(tools / "nvidia-smi", "NVIDIA H200, 580.159.04, 9.0, 143771")
    for name, text in (
        ("llama-cli", "Available devices:\n  CUDA0: NVIDIA H200 (143771 MiB, 143000 MiB free)"),
        ("test-turbo-backend", BACKEND),
        ("test-backend-ops", cases()),
        ("llama-completion", ""),
        ("llama-bench", ""),
    ):
        says(programs / name, text)
    for name in ("toolkit/lib64/libcublas.so", "toolkit/include/cublas_v2.h", "toolkit/lib64/stubs/libcuda.so"):
        path = tmp_path / "fakes" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def proven(pack: Path, *words: str, **variables: str) -> tuple[int, dict[str, Any]]:
    """Run the pack with the fake tools: its exit code and its document."""
    fakes = pack.parent / "fakes"
    env = {"FAKES": str(fakes), "PATH": f"{fakes}/bin:/usr/bin:/bin", **variables}
    script = [sys.executable, str(pack / "gpu_proof.py"), "run", "--out", str(pack / "out.json"), *words]
    done = subprocess.run(script, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert (pack / "out.json").is_file(), done.stderr
    return done.returncode, json.loads((pack / "out.json").read_text())


def states(document: Mapping[str, Any]) -> dict[str, str]:
    return {stage["name"]: stage["status"] for stage in document["stages"]}


def test_a_pack_holds_the_committed_files_of_the_tree_turbotool_and_the_model(pack: Path, given: Ingredients) -> None:
    with zipfile.ZipFile(pack / "llama.cpp.zip") as sources:
        names = set(sources.namelist())
        assert sources.read("src/core.cpp") == (given.tree / "src/core.cpp").read_bytes()
        assert b"turbo 10" in sources.read("src/core.cpp")
    assert {"CMakeLists.txt", "src/core.cpp", "src/turbo/codec.c", "src/dos.h"} <= names
    assert not {".gitignore", "run.sh"} & names
    facts = json.loads((pack / "pack.json").read_text())
    assert facts["upstream"]["source"] == "git"
    assert facts["upstream"]["commit"] == read_lock(given.layout).upstream.commit
    assert facts["series_tree"][:9] in facts["backends"]["cuda"]["options"]["LLAMA_BUILD_COMMIT"]
    assert facts["backends"]["cuda"]["options"]["GGML_CUDA"] == "ON"
    assert "GGML_CUDA" not in facts["backends"]["cpu"]["options"]
    assert (pack / facts["model"]["path"]).read_bytes() == b"GGUF"
    assert (pack / "turbotool/verify/registry.py").is_file()
    assert os.access(pack / "run.sh", os.X_OK)
    assert not list(pack.rglob("__pycache__"))


def test_a_lock_with_a_field_that_nobody_knows_yet_is_packed_with_it(given: Ingredients) -> None:
    text = given.layout.lock_file.read_text()
    given.layout.lock_file.write_text(text.replace("[upstream]\n", '[upstream]\nnewer = "b11549"\n'))
    assert gpu_pack.upstream_of(given.layout)["newer"] == "b11549"


def test_a_pack_that_is_too_large_is_refused_with_its_largest_files(given: Ingredients, tmp_path: Path) -> None:
    def large(folder: Path, version: str, numpy: bool) -> list[str]:
        folder.mkdir()
        (folder / "large.whl").write_bytes(bytes(3 << 20))
        return ["large.whl"]

    with pytest.raises(SystemExit, match=r"more than 3: wheels/large\.whl 3\.0"):
        make_pack(tmp_path / "out", given, limit_mib=3, fetch=large)
    assert not (tmp_path / "out").exists()


def test_the_model_does_not_count(given: Ingredients, tmp_path: Path) -> None:
    given.model.write_bytes(bytes(5 << 20))
    assert make_pack(tmp_path / "out", given, limit_mib=4, fetch=wheels) < 4 << 20


def test_a_tree_with_edits_or_of_another_series_is_not_packed(given: Ingredients, tmp_path: Path) -> None:
    (given.tree / "src/core.cpp").write_text("edited\n")
    with pytest.raises(SystemExit, match="holds edits"):
        make_pack(tmp_path / "out", given, fetch=wheels)
    with pytest.raises(SystemExit, match="locked is"):
        make_pack(tmp_path / "out", replace(given, tree=tmp_path), fetch=wheels)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_exists_is_kept(given: Ingredients, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="name a new folder"):
        make_pack(tmp_path, given, fetch=wheels)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("ggml/src/ggml-cuda/turbo.cu", True),
        ("ggml/src/ggml-cpu/turbo.c", True),
        ("ggml/src/ggml-vulkan/ggml-vulkan.cpp", False),
        ("ggml/src/ggml-metal/kernels/turbo.metal", False),
        ("ggml/src/ggml.c", True),
        ("scripts/ui-assets.cmake", True),
        ("scripts/compare.cpp", False),
        ("tools/ui/CMakeLists.txt", True),
        ("tools/ui/ui.cpp.in", True),
        ("tools/ui/src/app.css", False),
        ("tools/server/README.md", True),
        ("docs/build.md", True),
        ("docs/other.md", False),
        ("models/ggml-vocab-phi-3.gguf", False),
        (".github/workflows/build.yml", False),
    ],
)
def test_what_a_build_for_cuda_and_the_cpu_does_not_read_stays_out(name: str, kept: bool) -> None:
    assert is_kept(name, {"docs/build.md", "tools/server/README.md"}) is kept


def test_turbotools_own_requirements_are_packed_without_the_large_ones() -> None:
    names = {word.split(">")[0].split("<")[0] for word in requirements()}
    assert {"click", "msgspec", "tomlkit", "ninja", "markdown-it-py", "psutil"} <= names
    assert not {"cmake", "gguf", "GitPython", "pip"} & names


def test_the_checks_that_need_numpy_are_those_that_write_models() -> None:
    assert gpu_pack.check_facts()["numpy_checks"] == NEED_NUMPY


def test_the_document_of_a_proof_has_every_stage_with_its_figures(pack: Path) -> None:
    code, document = proven(pack)
    assert states(document) == dict.fromkeys(STAGES, PASSED), document["stages"]
    assert (code, document["ok"], document["complete"]) == (0, True, True)
    assert document["schema"] == "turbotool.gpu-proof"
    assert document["upstream"]["commit"]
    assert document["series_tree"] == json.loads((pack / "pack.json").read_text())["series_tree"]
    machine = document["machine"]
    assert machine["gpus"] == [
        {"name": "NVIDIA H200", "driver": "580.159.04", "compute_capability": "9.0", "memory_mib": 143771}
    ]
    assert (machine["nvcc"], machine["cmake"], machine["ninja"]) == ("13.0.88", "cmake version 3.99.1", "1.99.0")
    stages = {stage["name"]: stage for stage in document["stages"]}
    assert stages["configure"]["figures"] == {"cuda_architectures": "90-real"}
    built = stages["build"]["figures"]
    assert built["steps"] == {"done": 2, "of": 2}
    assert built["slowest_seconds"] == {"x.o": 1.5, "bin/x": 0.1}
    assert built["bytes"].keys() >= {"llama-bench", "test-turbo-backend"}
    assert stages["test-turbo-backend"]["figures"]["differ"] == {"blocks": 3, "values": 0}
    assert stages["test-backend-ops"]["figures"]["passed_of"]["turbo4"]["FLASH_ATTN_EXT"] == 1
    assert stages["verify"]["figures"]["document"]["asked"][:3] == ["verify", "--backend", "cuda"]
    assert stages["bench"]["figures"]["document"]["asked"][:3] == ["bench", "--backend", "cuda"]
    assert all(stage["exit_code"] == 0 and stage["seconds"] <= stage["limit_seconds"] for stage in stages.values())


def test_the_build_is_for_the_gpu_that_is_there_and_nothing_else(pack: Path) -> None:
    proven(pack, "--only", "configure")
    fakes = pack.parent / "fakes"
    options = (fakes / "cmake.txt").read_text().splitlines()
    wanted = ("GGML_CUDA=ON", "CMAKE_CUDA_ARCHITECTURES=90-real", f"CMAKE_CUDA_COMPILER={fakes}/bin/nvcc")
    assert {f"-D{option}" for option in wanted} <= set(options)
    assert f"-DCMAKE_INSTALL_RPATH=$ORIGIN;{fakes}/toolkit/lib64" in options
    assert not [option for option in options if "FA_ALL_QUANTS" in option or "NO_VMM" in option]
    assert (fakes / "nvcc.txt").read_text().splitlines()[0] == "--version"


def test_what_was_unpacked_is_kept_so_that_a_second_run_goes_on_with_the_build(pack: Path) -> None:
    proven(pack, "--only", "configure")
    source, wheel = pack / "vendor/llama.cpp/src/core.cpp", pack / "build/site/ninja-1.data/scripts/ninja"
    before = [path.stat().st_mtime_ns for path in (source, wheel)]
    code, document = proven(pack)
    assert (code, states(document)) == (0, dict.fromkeys(STAGES, PASSED))
    assert [path.stat().st_mtime_ns for path in (source, wheel)] == before


def test_a_failing_stage_keeps_no_later_one_from_running(pack: Path) -> None:
    says(pack.parent / "fakes/programs/test-backend-ops", cases().replace("OK", "FAIL", 1), status=1)
    code, document = proven(pack)
    assert code == 1
    assert not document["ok"]
    assert states(document) == {**dict.fromkeys(STAGES, PASSED), "test-backend-ops": "failed"}
    failed = next(stage for stage in document["stages"] if stage["status"] == "failed")
    assert failed["reason"] == "exit code 1; 1 cases failed; no case ran for turbo2 CPY"
    assert failed["figures"]["first_failed"] == ["CPY(type=turbo2,ne=[64,1]): FAIL"]
    assert failed["tail"]


def test_a_program_that_was_not_built_is_told_and_the_others_run(pack: Path) -> None:
    (pack.parent / "fakes/programs/llama-bench").unlink()
    code, document = proven(pack)
    assert code == 1
    assert states(document) == {**dict.fromkeys(STAGES, PASSED), "bench": NOT_RUN}
    assert document["stages"][-1]["reason"] == "there is no llama-bench"


def test_without_the_device_nothing_counts_as_proven(pack: Path) -> None:
    says(pack.parent / "fakes/programs/llama-cli", "Available devices:")
    says(pack.parent / "fakes/programs/test-turbo-backend", "no device\nall ok")
    _, document = proven(pack)
    reasons = {stage["name"]: stage["reason"] for stage in document["stages"] if stage["status"] == "failed"}
    assert reasons == {"devices": "CUDA0 is not among the devices", "test-turbo-backend": "nothing was compared"}


def test_on_the_cpu_the_comparison_with_devices_is_skipped_and_no_toolkit_is_looked_for(pack: Path) -> None:
    says(pack.parent / "fakes/programs/test-turbo-backend", "no device\nall ok")
    code, document = proven(pack, "--backend", "cpu")
    assert code == 0
    assert states(document)["test-turbo-backend"] == "skipped"
    assert "devices" not in states(document)
    assert not (pack.parent / "fakes/nvcc.txt").exists()


def test_without_numpy_the_checks_that_need_it_are_left_out_and_named(pack: Path) -> None:
    site = pack.parent / "site"
    site.mkdir()
    (site / "gguf.py").write_text("raise ImportError('no numpy')\n")
    _, document = proven(pack, PYTHONPATH=str(site))
    verified = next(stage for stage in document["stages"] if stage["name"] == "verify")["figures"]
    why = "this Python cannot import gguf, which needs numpy"
    assert verified["left_out"] == {"checks": NEED_NUMPY, "why": why}
    named = [word for word in verified["document"]["asked"] if word in {spec.name for spec in CHECKS}]
    assert len(named) == len(CHECKS) - len(NEED_NUMPY)
    assert "graph-budget" not in named


def test_without_loopback_verify_is_not_begun_because_llama_cli_would_wait_for_ever(
    pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{pack.parent}/fakes/bin:/usr/bin:/bin")
    monkeypatch.setenv("FAKES", str(pack.parent / "fakes"))
    proof = find(pack, "cuda", "")
    assert proof.machine.loopback
    cut = replace(proof, machine=replace(proof.machine, loopback=False))
    stages = {stage.name: replace(stage, needs=()) for stage in plan(cut, 16)}
    (result,) = run_all([stages["verify"]], 60, pack)
    assert result.status == NOT_RUN
    assert "127.0.0.1" in result.reason
    assert not stages["bench"].blocked


def test_the_seconds_of_all_stages_fit_the_twelve_minutes(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{pack.parent}/fakes/bin:/usr/bin:/bin")
    monkeypatch.setenv("FAKES", str(pack.parent / "fakes"))
    stages = plan(find(pack, "cuda", ""), 16)
    assert sum(stage.least for stage in stages) <= 12 * 60


def shell(name: str, script: str, limit: float = 60, least: float = 0) -> Stage:
    return Stage(name, ("/bin/sh", "-c", script), limit, least)


def run_all(stages: list[Stage], seconds: float, folder: Path) -> list[Any]:
    return list(run_stages(stages, seconds, folder, cwd=folder, env={"PATH": "/usr/bin:/bin"}))


def test_a_stage_that_takes_too_long_ends_with_all_its_processes_and_the_next_one_runs(tmp_path: Path) -> None:
    slow = shell("slow", "sleep 60 & echo $! > pid; echo begun; wait", limit=0.5)
    started = time.monotonic()
    first, second = run_all([slow, shell("next", "echo done")], 60, tmp_path)
    assert time.monotonic() - started < 30
    assert (first.status, first.exit_code, first.limit_seconds) == (TIMED_OUT, None, 0.5)
    assert first.tail == ("begun",)
    assert second.status == PASSED
    pid = int((tmp_path / "pid").read_text())
    end = time.monotonic() + 10
    while is_alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not is_alive(pid)


def test_a_long_stage_leaves_the_later_ones_their_seconds(tmp_path: Path) -> None:
    first, second, third = run_all(
        [shell("build", "true", 3600), shell("verify", "true", 100, 20), shell("bench", "true", 50, 30)], 100, tmp_path
    )
    assert [round(result.limit_seconds) for result in (first, second, third)] == [50, 70, 50]


def test_a_stage_for_which_no_time_is_left_is_told_and_not_begun(tmp_path: Path) -> None:
    (result,) = run_all([shell("late", "touch begun")], 1, tmp_path)
    assert (result.status, result.reason) == (NOT_RUN, "no time is left")
    assert not (tmp_path / "begun").exists()


def test_a_program_that_is_not_there_fails_its_stage(tmp_path: Path) -> None:
    (result,) = run_all([Stage("x", ("/nowhere/cmake",), 60, 0)], 60, tmp_path)
    assert (result.status, result.exit_code) == ("failed", 127)
    assert result.tail == ("/nowhere/cmake: No such file or directory",)


def test_figures_of_a_command_that_fails_are_kept(tmp_path: Path) -> None:
    stage = replace(shell("x", "echo 7; exit 3"), read=lambda printed: Found({"number": int(printed.stdout)}))
    result = run_stage(stage, 60, time.monotonic() + 60, tmp_path, cwd=tmp_path, env={})
    assert (result.status, result.exit_code, result.figures) == ("failed", 3, {"number": 7})


def test_a_case_that_fails_is_found_with_its_error_before_it() -> None:
    text = (
        "[CPY] ERR = 0.5 > 0.1   CPY(type_src=f32,type_dst=turbo4): FAIL\n  CPY(type=turbo4): not supported [CUDA0]\n"
    )
    found = figures.operations(("CPY",), ("turbo4",))(Printed(text, ""))
    assert found.figures["first_failed"] == [text.splitlines()[0]]
    assert found.figures["not_supported"] == {"CPY": 1}
    assert found.fault == "1 cases failed; no case ran for turbo4 CPY"


def test_upstreams_own_output_is_read_with_its_colours_removed(tmp_path: Path) -> None:
    log = Path(__file__).parents[1] / "data/backend-ops.log"
    stage = Stage("ops", ("/bin/cat", str(log)), 60, 0, figures.operations(("CPY",), ("turbo4",)))
    (result,) = run_all([stage], 60, tmp_path)
    assert result.status == PASSED
    assert result.figures["passed_of"] == {"turbo4": {"CPY": 4}}


def test_checks_of_verify_that_were_skipped_on_a_gpu_are_a_fault() -> None:
    checks = [{"name": "backend-ops", "ok": False, "skipped": True}, {"name": "kld", "ok": True, "skipped": False}]
    printed = Printed(json.dumps({"ok": True, "checks": checks}), "")
    assert figures.verified((), "", all_run=True)(printed).fault == "skipped: backend-ops"
    assert figures.verified((), "", all_run=False)(printed).fault == ""


def test_a_verification_that_was_ended_keeps_the_checks_that_it_told() -> None:
    found = figures.verified((), "", all_run=True)(Printed("", "verifying\nok    kld-turbo4  0.03\nFAIL  shift  2\n"))
    assert found.figures["told"] == ["ok    kld-turbo4  0.03", "FAIL  shift  2"]
    assert found.fault == "it printed no document"


def toolkit_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An nvcc without cuBLAS on PATH."""
    (folder / "fakes/toolkit/lib64").mkdir(parents=True)
    (folder / "fakes/toolkit/include").mkdir()
    (folder / "fakes/toolkit/bin").mkdir()
    (folder / "fakes/toolkit/lib64/libcudart.so").touch()
    (folder / "fakes/toolkit/include/cuda_runtime.h").touch()
    program(folder / "fakes/toolkit/bin/nvcc", NVCC)
    monkeypatch.setenv("FAKES", str(folder / "fakes"))


def test_an_nvcc_without_cublas_is_joined_with_pythons_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toolkit_in(tmp_path, monkeypatch)
    for name in (
        "13/include/cublas_v2.h",
        "13/lib/libcublas.so.13",
        "12/include/cublas_v2.h",
        "12/lib/libcublas.so.12",
    ):
        path = tmp_path / f"site/nvidia/cu{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    env = {"PATH": str(tmp_path / "fakes/toolkit/bin")}
    alone = gpu_toolkit.find_toolkit(tmp_path / "links", env, [])
    assert alone is not None
    assert not alone.cublas
    joined = gpu_toolkit.find_toolkit(tmp_path / "links", env, [str(tmp_path / "site")])
    assert joined is not None
    assert joined.cublas
    assert joined.nvcc == tmp_path / "links/bin/nvcc"
    assert {path.name for path in (tmp_path / "links/lib64").iterdir()} == {
        *("libcudart.so", "libcublas.so", "libcublas.so.13")
    }
    assert {path.name for path in (tmp_path / "links/include").iterdir()} == {"cublas_v2.h", "cuda_runtime.h"}


def test_without_a_library_of_the_driver_to_link_with_virtual_memory_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toolkit_in(tmp_path, monkeypatch)
    monkeypatch.setattr(gpu_toolkit, "DRIVER", ())
    env = {"PATH": str(tmp_path / "fakes/toolkit/bin")}
    found = gpu_toolkit.find_toolkit(tmp_path / "links", env, [])
    assert found is not None
    assert found.options()["GGML_CUDA_NO_VMM"] == "ON"
    (tmp_path / "fakes/toolkit/lib64/stubs").mkdir()
    (tmp_path / "fakes/toolkit/lib64/stubs/libcuda.so").touch()
    found = gpu_toolkit.find_toolkit(tmp_path / "links", env, [])
    assert found is not None
    assert "GGML_CUDA_NO_VMM" not in found.options()


def test_gpus_of_one_kind_are_compiled_for_once() -> None:
    gpu = gpu_toolkit.Gpu("NVIDIA H200", "580.1", "9.0", 1)
    other = replace(gpu, compute_capability="12.0")
    assert gpu_toolkit.architectures([gpu, gpu, other]) == "90-real;120-real"
    assert gpu_toolkit.architectures([]) == ""


@pytest.mark.slow
def test_a_real_pack_configures_and_knows_its_checks_without_anything_installed(tmp_path: Path) -> None:
    """Sources that the pack lacks would stop CMake, wheels that it lacks would stop turbotool."""
    folder = tmp_path / "pack"
    apply = [sys.executable, "-m", "turbotool", "patch", "apply"]
    subprocess.run(apply, check=True, timeout=600)
    model = tmp_path / "tiny.gguf"
    model.write_bytes(b"GGUF")
    layout = find_layout()
    make_pack(folder, Ingredients(layout, layout.tree, model, [VERSION]))
    bare = [sys.executable, "-I", "-S"]
    words = ["run", "--backend", "cpu", "--only", "configure", "--out", str(tmp_path / "out.json")]
    script = f"import runpy, sys; sys.path.insert(0, {str(folder)!r}); sys.argv = ['x', *{words!r}]\n"
    script += "runpy.run_module('gpu_proof', run_name='__main__')"
    subprocess.run([*bare, "-c", script], check=True, timeout=300)
    assert states(json.loads((tmp_path / "out.json").read_text())) == {"configure": PASSED}
    env = {**os.environ, "PYTHONPATH": f"{folder}:{folder}/build/site", "PYTHONDONTWRITEBYTECODE": "1"}
    asked = [sys.executable, "-S", "-m", "turbotool", "verify", "--list", "--json"]
    done = subprocess.run(asked, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=True)
    assert [check["name"] for check in json.loads(done.stdout)["checks"]] == [spec.name for spec in CHECKS]
