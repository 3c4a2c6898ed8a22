from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from fake_tools import commit, git

from turbotool.build.stamps import settle
from turbotool.errors import ToolFailed
from turbotool.system.git import Git


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "build").mkdir()
    return tmp_path / "the tree", tmp_path / "build"


def times(tree: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in tree.iterdir() if path.is_file()}


def test_only_changed_files_become_newer_when_the_whole_tree_is_written_anew(folders: tuple[Path, Path]) -> None:
    tree, build = folders
    settle(Git(tree), commit(tree, {"a.cpp": "1", "b.cpp": "1"}), build)
    before = times(tree)
    changed = commit(tree, {"a.cpp": "2"})
    for path in tree.glob("*.cpp"):
        path.touch()
    assert settle(Git(tree), changed, build) == 1
    after = times(tree)
    assert after["a.cpp"] > before["a.cpp"]
    assert after["b.cpp"] == before["b.cpp"]


def test_old_content_brought_back_is_newer_than_what_replaced_it(folders: tuple[Path, Path]) -> None:
    tree, build = folders
    settle(Git(tree), commit(tree, {"a.cpp": "1"}), build)
    settle(Git(tree), commit(tree, {"a.cpp": "2"}), build)
    second = times(tree)["a.cpp"]
    back = commit(tree, {"a.cpp": "1"})
    os.utime(tree / "a.cpp", ns=(1, 1))
    settle(Git(tree), back, build)
    assert times(tree)["a.cpp"] > second


def test_git_sees_no_edit_afterwards(folders: tuple[Path, Path]) -> None:
    tree, build = folders
    settle(Git(tree), commit(tree, {"a.cpp": "1"}), build)
    assert git(tree, "diff-index", "HEAD") == ""


NAMED = '{"schema": "turbotool.stamps", "version": %d, "files": {"a.cpp": %s}}'


@pytest.mark.parametrize(
    "damage", ["", "{", "[1]", '{"a.cpp": 3}', NAMED % (1, "3"), NAMED % (1, '["x", "1"]'), NAMED % (2, '["x", 1]')]
)
def test_damaged_memory_makes_every_file_new(folders: tuple[Path, Path], damage: str) -> None:
    tree, build = folders
    (build / "stamps.json").write_text(damage)
    assert settle(Git(tree), commit(tree, {"a.cpp": "1", "b.cpp": "1"}), build) == 2


def test_a_time_that_no_file_can_have_makes_the_file_new(folders: tuple[Path, Path]) -> None:
    tree, build = folders
    made = commit(tree, {"a.cpp": "1", "b.cpp": "1", "c.cpp": "1"})
    settle(Git(tree), made, build)
    stamps = json.loads((build / "stamps.json").read_text())
    stamps["files"]["a.cpp"][1], stamps["files"]["b.cpp"][1] = 10**40, -1
    (build / "stamps.json").write_text(json.dumps(stamps))
    assert settle(Git(tree), made, build) == 2


def test_neither_variables_nor_configuration_of_the_user_have_a_say(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, build = folders
    made = commit(tree, {"a.cpp": "1"})
    (tmp_path / "config").write_text("[broken\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    assert settle(Git(tree), made, build) == 1


def test_wrong_tree_is_an_error(folders: tuple[Path, Path]) -> None:
    tree, build = folders
    commit(tree, {"a.cpp": "1"})
    with pytest.raises(ToolFailed):
        settle(Git(tree), "0" * 40, build)
