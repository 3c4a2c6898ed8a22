from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_tools import UPSTREAM, Site, commit, cpu_seconds, fake_site, says

from turbotool.build import plan as buildplan
from turbotool.build.backends import BACKENDS, find_backend
from turbotool.build.compile import AGAIN_BYTES, BuildOutcome
from turbotool.build.document import build_document
from turbotool.build.host import Choices, Host
from turbotool.build.record import read_record
from turbotool.build.request import Asked, BuildRequest
from turbotool.build.targets import TARGETS
from turbotool.errors import CompileFailed, ConfigureFailed, NoSpace, ToolMissing, UsageMistake
from turbotool.layout import Layout
from turbotool.programs import choose
from turbotool.programs.choose import choose_binaries
from turbotool.system.documents import as_builtins, encode
from turbotool.system.output import Output
from turbotool.system.session import Session
from turbotool.upstream.lock import Upstream


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return fake_site(tmp_path)


def configured(site: Site) -> list[str]:
    return (site.folder / "arguments.txt").read_text().splitlines()


def variables(site: Site) -> dict[str, str]:
    pairs = (line.partition("=") for line in (site.folder / "variables.txt").read_text().splitlines())
    return {name: value for name, _, value in pairs}


def test_second_build_does_nothing(site: Site) -> None:
    first = site.build()
    second = site.build()
    assert (first.cached, second.cached) == (False, True)
    assert second.outputs == first.outputs
    assert len(site.runs()) == 1


def test_outputs_are_the_files_in_bin_with_their_hashes(site: Site) -> None:
    outcome = site.build()
    assert {output.name for output in outcome.outputs} == {*TARGETS, "libggml.so.1"}
    for output in outcome.outputs:
        data = (outcome.bin_dir / output.name).read_bytes()
        assert (output.sha256, output.bytes) == (hashlib.sha256(data).hexdigest(), len(data))


def test_json_contract(site: Site) -> None:
    document = as_builtins(build_document(site.build()))
    assert document["ok"] is True
    assert document["cached"] is False
    assert document["reason"] == "no previous build"
    assert Path(str(document["bin_dir"])).is_absolute()
    assert document["backend"] == "cpu"
    assert {"tree", "seconds"} <= document.keys()
    assert document["outputs"][0].keys() == {"name", "sha256", "bytes"}


def test_build_json_names_lock_series_tools_flags_and_log(site: Site) -> None:
    site.build()
    document = json.loads((site.folder / "build.json").read_text())
    assert document["lock"] == {"commit": UPSTREAM.commit, "source": "pypi", "tag": "", "tree": UPSTREAM.tree}
    assert document["series"] == "series"
    assert document["tools"]["c++"]["version"] == "12.2.0"
    assert document["options"]["CMAKE_BUILD_TYPE"] == "Release"
    assert (site.folder / document["log"]).is_file()


@pytest.mark.parametrize(
    ("upstream", "known"),
    [
        (UPSTREAM, "0c1e57098"),
        (replace(UPSTREAM, commit="", tag="b11549"), "b11549"),
        (replace(UPSTREAM, commit="", tag="release/7"), "release-7"),
        (replace(UPSTREAM, commit=""), "ababababa"),
    ],
)
def test_version_reports_upstream_as_it_is_known_and_tree(site: Site, upstream: Upstream, known: str) -> None:
    site = replace(site, upstream=upstream)
    plan = site.plan()
    site.build()
    assert f"-DLLAMA_BUILD_COMMIT={known}-turbo-{plan.source.tree[:9]}" in configured(site)


def test_changed_tree_is_the_reason(site: Site) -> None:
    old = site.build().tree
    new = commit(site.layout.tree, {"main.cpp": "int main() { return 1; }\n"})
    assert site.build().reasons == (f"tree: {old[:12]} -> {new[:12]}",)


def test_changed_compiler_is_the_reason(site: Site, tmp_path: Path) -> None:
    site.build()
    says(tmp_path / "tools" / "c++", "c++ (Fake 13.1.0-1) 13.1.0")
    (reason,) = site.build().reasons
    assert reason.startswith("C++ compiler: ")
    assert "12.2.0" in reason
    assert "13.1.0" in reason


def test_changed_option_flag_and_target_are_named(site: Site) -> None:
    site.build()
    changed = site.asking(options=(("GGML_LTO", "ON"),), extra_targets=("llama-batched",)).setting(CFLAGS="-O1")
    names = [reason.partition(":")[0] for reason in changed.build().reasons]
    assert names == ["targets", "option GGML_LTO", "variable CFLAGS"]


@pytest.mark.parametrize("name", ["CPLUS_INCLUDE_PATH", "NVCC_APPEND_FLAGS", "CL"])
def test_a_variable_that_a_compiler_reads_by_itself_is_a_reason(site: Site, name: str) -> None:
    site.build()
    (reason,) = site.setting(**{name: "other"}).build().reasons
    assert reason.startswith(f"variable {name}: ")


def test_missing_output_is_the_reason(site: Site) -> None:
    site.build()
    (site.folder / "bin" / "llama-cli").unlink()
    assert site.build().reasons == ("output llama-cli is missing",)


def test_missing_library_link_is_the_reason(site: Site) -> None:
    site.build()
    (site.folder / "bin" / "libggml.so").unlink()
    assert site.build().reasons == ("output libggml.so is missing",)


def test_touched_output_is_hashed_and_kept(site: Site) -> None:
    site.build()
    os.utime(site.folder / "bin" / "llama-cli", ns=(1, 1))
    assert site.build().cached


def test_altered_output_of_equal_size_is_built_again(site: Site) -> None:
    site.build()
    file = site.folder / "bin" / "llama-cli"
    file.write_text(file.read_text().replace("b", "B"))
    assert site.build().reasons == ("output llama-cli was changed after the build",)


def test_jobs_and_launcher_are_not_part_of_the_key(site: Site, tmp_path: Path) -> None:
    site.build()
    says(tmp_path / "tools" / "ccache", "ccache version 4.7.5")
    assert site.asking(jobs=7).build().cached


def test_jobs_reach_ninja(site: Site) -> None:
    site.asking(jobs=7).build()
    assert site.runs()[0].startswith("-j 7 llama-cli ")


def test_ccache_is_the_launcher_of_both_compilers(site: Site, tmp_path: Path) -> None:
    ccache = says(tmp_path / "tools" / "ccache", "ccache version 4.7.5")
    site.build()
    assert f"-DCMAKE_C_COMPILER_LAUNCHER={ccache}" in configured(site)
    assert f"-DCMAKE_CXX_COMPILER_LAUNCHER={ccache}" in configured(site)
    assert variables(site)["CCACHE_BASEDIR"] == str(site.layout.work)


def test_users_ccache_basedir_is_kept(site: Site) -> None:
    site.setting(CCACHE_BASEDIR="/mine").build()
    assert variables(site)["CCACHE_BASEDIR"] == "/mine"


def test_git_of_cmake_is_fenced_at_the_tree(site: Site) -> None:
    site.setting(GIT_DIR="/elsewhere/.git").build()
    assert variables(site)["GIT_CEILING_DIRECTORIES"] == str(site.layout.tree.parent)
    assert "GIT_DIR" not in variables(site)


def test_users_cmake_option_wins(site: Site) -> None:
    site.asking(options=(("CMAKE_BUILD_TYPE", "Debug"),)).build()
    assert [word for word in configured(site) if "CMAKE_BUILD_TYPE" in word] == ["-DCMAKE_BUILD_TYPE=Debug"]


def test_portable_is_not_native(site: Site) -> None:
    site.asking(choices=Choices(portable=True)).build()
    assert "-DGGML_NATIVE=OFF" in configured(site)


def test_cc_may_hold_a_launcher_and_flags(site: Site, tmp_path: Path) -> None:
    gcc = says(tmp_path / "else where" / "gcc-13", "gcc-13 (Fake) 13.1.0")
    site.setting(CC=f"ccache '{gcc}' -m32", CFLAGS="-O1").build()
    assert f"-DCMAKE_C_COMPILER={gcc}" in configured(site)
    assert variables(site)["CFLAGS"] == "-m32 -O1"


def test_no_compiler_lists_what_was_tried_and_how_to_install(site: Site, tmp_path: Path) -> None:
    (tmp_path / "tools" / "c++").unlink()
    says(tmp_path / "tools" / "g++", "cannot execute cc1plus", status=1)
    says(tmp_path / "tools" / "apt-get", "apt 2.6.1")
    with pytest.raises(ToolMissing) as caught:
        site.plan()
    assert "clang++" in caught.value.message
    assert "g++ (broken: --version ended with exit status 1)" in caught.value.message
    assert caught.value.hint == "sudo apt-get install build-essential"


def test_compiler_that_the_user_named_is_not_silently_replaced(site: Site) -> None:
    with pytest.raises(ToolMissing) as caught:
        site.setting(CXX="clang++-99").plan()
    assert "CXX=clang++-99" in caught.value.message
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("unset CXX")


def test_cmake_failure_quotes_its_first_error_and_the_log(site: Site) -> None:
    failure = "CMake Error at src/CMakeLists.txt:12 (find_package):\n  Could not find Foo.\n\nCMake Error: later\n"
    with pytest.raises(ConfigureFailed) as caught:
        site.setting(FAKE_CMAKE_FAILURE=failure).build()
    assert "src/CMakeLists.txt:12: Could not find Foo." in caught.value.message
    assert "later" not in caught.value.message
    assert "build-cpu.log" in caught.value.message


def test_compile_failure_quotes_file_line_and_the_log(site: Site) -> None:
    failure = f"{site.layout.tree}/src/kv.cpp:7:3: error: 'x' was not declared\n/other.cpp:1:1: error: second"
    with pytest.raises(CompileFailed) as caught:
        site.setting(FAKE_NINJA_FAILURE=failure).build()
    assert "src/kv.cpp:7: 'x' was not declared" in caught.value.message
    assert "second" not in caught.value.message
    assert str(site.layout.logs / "build-cpu.log") in caught.value.message
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("fix src/kv.cpp")


@pytest.mark.parametrize("variable", ["FAKE_CMAKE_FAILURE", "FAKE_NINJA_FAILURE"])
def test_full_disk_is_no_space(site: Site, variable: str) -> None:
    with pytest.raises(NoSpace, match="No space left on device"):
        site.setting(**{variable: "fatal error: a.o: No space left on device"}).build()


def test_too_little_space_is_refused_before_the_build(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder that is not there yet; what is there needs less room to be built again."""
    free = SimpleNamespace(free=AGAIN_BYTES)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    with pytest.raises(NoSpace, match=r"a build needs about \d+ MiB in .*, \d+ MiB are free") as caught:
        site.build()
    assert "TURBOTOOL_WORK" in str(caught.value.hint)
    assert not site.folder.exists()
    free.free = BACKENDS["cpu"].disk_bytes
    site.build()
    free.free = AGAIN_BYTES
    assert not site.asking(extra_targets=("llama-batched",)).build().cached


def test_failed_build_is_tried_again_and_succeeds(site: Site) -> None:
    with pytest.raises(CompileFailed):
        site.setting(FAKE_NINJA_FAILURE="x.cpp:1:1: error: y").build()
    assert not site.build().cached
    assert site.build().cached


def test_ninja_that_builds_nothing_is_not_believed(site: Site) -> None:
    with pytest.raises(CompileFailed, match="llama-quantize"):
        site.setting(FAKE_NINJA_FORGETS="llama-quantize").build()


def test_interrupted_configure_starts_from_an_empty_cache(site: Site) -> None:
    with pytest.raises(ConfigureFailed):
        site.setting(FAKE_CMAKE_FAILURE="CMake Error: x").build()
    leftover = site.folder / "CMakeFiles" / "half"
    leftover.parent.mkdir()
    leftover.touch()
    site.build()
    assert not leftover.exists()


def damaged(state: dict[str, object], damage: str) -> str:
    forms = {
        "empty": "",
        "old": {name: state[name] for name in ("place", "compilers", "settings")},
        "missing": {name: value for name, value in state.items() if name != "compilers"},
        "retyped": {**state, "settings": []},
        "newer": {**state, "version": 2},
    }
    return json.dumps(forms[damage]) if forms[damage] else ""


@pytest.mark.parametrize("damage", ["empty", "old", "missing", "retyped", "newer"])
def test_a_damaged_state_of_cmake_counts_as_an_interruption(site: Site, damage: str) -> None:
    site.build()
    state = json.loads((site.folder / "configured.json").read_text())
    assert (state["schema"], state["version"]) == ("turbotool.cmake-state", 1)
    (site.folder / "configured.json").write_text(damaged(state, damage))
    leftover = site.folder / "CMakeFiles" / "half"
    leftover.parent.mkdir()
    leftover.touch()
    (site.folder / "main.o").touch()
    commit(site.layout.tree, {"main.cpp": "int main() { return 1; }\n"})
    site.build()
    assert (leftover.exists(), (site.folder / "main.o").exists()) == (False, True)


def test_dropped_option_does_not_survive_in_the_cache(site: Site) -> None:
    site.asking(options=(("GGML_LTO", "ON"),)).build()
    (site.folder / "CMakeFiles").mkdir()
    site.build()
    assert not (site.folder / "CMakeFiles").exists()


def test_new_tree_keeps_cache_and_objects(site: Site) -> None:
    site.build()
    kept = [site.folder / "CMakeFiles" / "compiler", site.folder / "main.o"]
    kept[0].parent.mkdir()
    for file in kept:
        file.touch()
    commit(site.layout.tree, {"main.cpp": "int main() { return 1; }\n"})
    site.build()
    assert all(file.exists() for file in kept)


def test_new_compiler_at_the_same_path_discards_objects(site: Site, tmp_path: Path) -> None:
    site.build()
    (site.folder / "main.o").touch()
    says(tmp_path / "tools" / "cc", "cc (Fake 13.1.0-1) 13.1.0")
    site.build()
    assert not (site.folder / "main.o").exists()


def test_moved_work_folder_is_built_from_scratch(site: Site, tmp_path: Path) -> None:
    site.build()
    (site.folder / "main.o").touch()
    moved = fake_site(tmp_path / "new")
    shutil.rmtree(moved.layout.work)
    shutil.move(site.layout.work, moved.layout.work)
    outcome = moved.build()
    assert "source folder moved" in outcome.reasons[0]
    assert not (moved.folder / "main.o").exists()


def test_leftover_of_a_dropped_target_is_removed(site: Site) -> None:
    site.asking(extra_targets=("llama-batched",)).build()
    outcome = site.build()
    assert "llama-batched" not in {output.name for output in outcome.outputs}
    assert not (site.folder / "bin" / "llama-batched").exists()


def test_log_of_the_run_before_is_kept(site: Site) -> None:
    site.build()
    site.asking(jobs=3, extra_targets=("llama-batched",)).build()
    assert "llama-batched" in (site.layout.logs / "build-cpu.log").read_text()
    assert "llama-batched" not in (site.layout.logs / "build-cpu.log.1").read_text()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("", "build.json is not JSON: Expecting value"),
        ("{", "build.json is not JSON: Expecting property name"),
        ("[]", "build.json is no turbotool.build-record document: it is no object"),
        ('{"schema": 99}', "build.json is no turbotool.build-record document: its schema is 99"),
        ('{"schema": 1, "outputs": []}', "build.json is of version 1, older than 2: an older turbotool made it"),
    ],
)
def test_another_build_json_is_no_previous_build_and_the_reason_tells_why(site: Site, damage: str, said: str) -> None:
    site.build()
    (site.folder / "build.json").write_text(damage)
    (reason,) = site.build().reasons
    assert reason.startswith(said)
    assert site.build().cached


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"asked": None}, "`$.asked`"),
        ({"asked": []}, "`$.asked`"),
        ({"asked": {"portable": False, "archs": 89, "options": {}, "targets": []}}, "`$.asked.archs`"),
        ({"asked": {"portable": False, "archs": [], "options": {}}}, "`targets` - at `$.asked`"),
        ({"outputs": [{"name": "a", "sha256": "", "bytes": "7", "mtime_ns": 1}]}, "`$.outputs[0].bytes`"),
        ({"version": 3}, "is of version 3 of turbotool.build-record, newer than 2"),
    ],
)
def test_a_damaged_or_newer_field_of_build_json_is_named_and_means_no_previous_build(
    site: Site, changes: dict[str, object], said: str
) -> None:
    site.build()
    document = json.loads((site.folder / "build.json").read_text())
    (site.folder / "build.json").write_text(json.dumps({**document, **changes}))
    (reason,) = site.build().reasons
    assert said in reason
    assert len(reason.splitlines()) == 1


def test_a_name_that_no_file_can_have_is_a_missing_output(site: Site) -> None:
    site.build()
    document = json.loads((site.folder / "build.json").read_text())
    document["outputs"][0]["name"] = "llama\0cli"
    document["links"]["\0"] = "x"
    (site.folder / "build.json").write_text(json.dumps(document))
    assert site.build().reasons == ("output llama\0cli is missing", "output \0 is missing")


def test_the_record_of_a_build_reads_back_as_it_was_written(site: Site) -> None:
    site.build()
    record = read_record(site.folder)
    assert record is not None
    assert encode(record) == (site.folder / "build.json").read_bytes()
    document = json.loads((site.folder / "build.json").read_text())
    assert (document["schema"], document["version"]) == ("turbotool.build-record", 2)
    assert record.reports == f"0c1e57098-turbo-{record.tree[:9]}"
    assert (record.asked, record.targets) == (Asked(False, (), {}, ()), TARGETS)


def test_progress_and_notes_reach_the_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = fake_site(tmp_path, "cuda")
    says(tmp_path / "tools" / "nvcc", "Cuda compilation tools, release 12.4, V12.4.99")
    backend = replace(BACKENDS["cuda"], notes=("some operations run on the CPU",))  # type: ignore[type-var]
    outcome = site.asking(backend=backend, choices=Choices(archs=("86", "89"))).build(Output())
    said = capsys.readouterr().err
    steps = len(TARGETS) + 1
    assert f"compiling: {steps}/{steps}" in said
    assert outcome.notes[0] in said
    assert outcome.notes == tuple(json.loads((site.folder / "build.json").read_text())["notes"])
    assert "-DCMAKE_CUDA_ARCHITECTURES=86;89" in configured(site)
    assert "-DGGML_CUDA=ON" in configured(site)


def test_what_cmake_leaves_out_is_said_and_recorded(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site = site.setting(FAKE_CMAKE_SAYS="-- left out: CPU variant armv9.2_1\n-- found: OpenMP")
    assert site.build(Output()).notes == ("left out: CPU variant armv9.2_1",)
    assert "note: left out: CPU variant armv9.2_1" in capsys.readouterr().err
    again = site.build()
    assert (again.cached, again.notes) == (True, ("left out: CPU variant armv9.2_1",))


def test_metal_is_configured_with_its_shaders_embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = fake_site(tmp_path, "metal")
    says(tmp_path / "tools" / "xcrun", "xcrun version 70.1")
    monkeypatch.setattr(buildplan, "this_host", lambda: Host("Darwin", "arm64", {}))
    outcome = site.build()
    assert {"-DGGML_METAL=ON", "-DGGML_METAL_EMBED_LIBRARY=ON"} <= set(configured(site))
    assert (outcome.backend, outcome.notes) == ("metal", ())


def test_noop_is_fast_with_two_thousand_source_files(site: Site) -> None:
    commit(site.layout.tree, {f"src/{number}.cpp": "" for number in range(2000)})
    site.build()
    started = cpu_seconds()
    assert site.build().cached
    assert cpu_seconds() - started < 1.0


def test_what_proves_a_build_does_not_make_another_one_instead(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    built = site.asking(choices=Choices(portable=True), options=(("GGML_LTO", "ON"),), extra_targets=("llama-imatrix",))
    built.build()
    asked: list[BuildRequest] = []

    def build_product(layout: Layout, request: BuildRequest, *_: object) -> BuildOutcome:
        asked.append(request)
        return built.build()

    monkeypatch.setattr(choose, "build_product", build_product)
    assert choose_binaries(Session(site.layout, Output()), "cpu", None).bin_dir == site.layout.build("cpu") / "bin"
    assert asked == [built.request]
    said = "--portable --cmake-option GGML_LTO=ON --target llama-imatrix"
    assert f"made with {said}" in capsys.readouterr().err
    shutil.rmtree(site.layout.build("cpu"))
    choose_binaries(Session(site.layout, Output()), "cpu", None)
    assert asked[1] == BuildRequest(BACKENDS["cpu"])


def test_unknown_backend_suggests_the_nearest() -> None:
    with pytest.raises(UsageMistake, match="did you mean 'vulkan'"):
        find_backend("vulcan")
    assert set(BACKENDS) == {"cpu", "cuda", "metal", "vulkan"}
