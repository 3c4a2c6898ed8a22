from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fake_tools import program, says

from turbotool.build import tools
from turbotool.build.installers import installer
from turbotool.build.tools import find_tools, probe


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("cmake version 3.25.1\n\nCMake suite", "3.25.1"),
        ("1.13.2.git.kitware.jobserver-pipe-1", "1.13.2"),
        ("gcc (Debian 12.2.0-14) 12.2.0\nCopyright (C) 2022", "12.2.0"),
        ("Apple clang version 15.0.0 (clang-1500.3.9.4)", "15.0.0"),
        ("Ubuntu clang version 14.0.0-1ubuntu1.1", "14.0.0"),
        ("git version 2.39.5 (Apple Git-154)", "2.39.5"),
        (
            "nvcc: NVIDIA (R) Cuda compiler driver\nCopyright\nCuda compilation tools, release 12.4, V12.4.99",
            "12.4",
        ),
        ("shaderc v2023.2 v2023.2\nspirv-tools v2023.1", "2023.2"),
    ],
)
def test_version_that_tools_print(tmp_path: Path, output: str, version: str) -> None:
    assert probe(str(says(tmp_path / "tool", output)), "PATH").version == version


def test_broken_tool_is_a_candidate_without_version(tmp_path: Path) -> None:
    says(tmp_path / "a" / "git", "libfoo.so: cannot open", status=127)
    good = says(tmp_path / "b" / "git", "git version 2.40.0")
    tool = find_tools({"PATH": f"{tmp_path / 'a'}:{tmp_path / 'b'}"}, ["git"])["git"]
    assert [found.version for found in tool.candidates] == [None, "2.40.0"]
    assert tool.chosen is not None
    assert tool.chosen.path == str(good)


def test_file_that_is_no_program_is_broken(tmp_path: Path) -> None:
    (tmp_path / "git").write_bytes(b"\x7fELF\0\0")
    (tmp_path / "git").chmod(0o755)
    (found,) = find_tools({"PATH": str(tmp_path)}, ["git"])["git"].candidates
    assert found.version is None


def test_tool_that_hangs_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "PROBE_SECONDS", 0.3)
    found = probe(str(program(tmp_path / "git", "exec /bin/sleep 60\n")), "PATH")
    assert found.version is None
    assert "no answer" in found.banner


def test_too_old_cmake_is_passed_over(tmp_path: Path) -> None:
    says(tmp_path / "a" / "cmake", "cmake version 3.10.2")
    says(tmp_path / "b" / "cmake", "cmake version 3.28.0")
    tool = find_tools({"PATH": f"{tmp_path / 'a'}:{tmp_path / 'b'}"}, ["cmake"], private=False)["cmake"]
    assert tool.chosen is not None
    assert tool.chosen.version == "3.28.0"
    assert "older than 3.18" in tool.describe_search()


def test_cmake_of_this_environment_comes_before_path(tmp_path: Path) -> None:
    says(tmp_path / "cmake", "cmake version 9.9.9")
    first = find_tools({"PATH": str(tmp_path)}, ["cmake"])["cmake"].chosen
    assert first is not None
    assert Path(first.path).is_relative_to(sys.prefix)


def test_folder_with_two_names_gives_one_candidate(tmp_path: Path) -> None:
    says(tmp_path / "usr" / "git", "git version 2.40.0")
    (tmp_path / "bin").symlink_to("usr")
    tool = find_tools({"PATH": f"{tmp_path / 'usr'}:{tmp_path / 'bin'}"}, ["git"])["git"]
    assert len(tool.candidates) == 1


@pytest.mark.parametrize(
    ("manager", "hint"),
    [
        ("apt-get", "sudo apt-get install build-essential"),
        ("dnf", "sudo dnf install gcc-c++"),
        ("pacman", "sudo pacman -S base-devel"),
    ],
)
def test_installation_command_of_each_package_manager(tmp_path: Path, manager: str, hint: str) -> None:
    says(tmp_path / manager, "1.0")
    assert installer({"PATH": str(tmp_path)}).hint("compiler") == hint


def test_a_compiler_that_no_shell_could_split_is_a_broken_one(tmp_path: Path) -> None:
    tool = find_tools({"PATH": str(tmp_path), "CC": "'cc"}, ["c"])["c"]
    assert [(found.path, found.version) for found in tool.candidates] == [("'cc", None)]
