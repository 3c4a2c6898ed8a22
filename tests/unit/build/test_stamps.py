from __future__ import annotations

import os
from pathlib import Path

import pytest
from fake_tools import commit, git

from turbotool.build.stamps import settle
from turbotool.errors import ToolFailed


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "build").mkdir()
    return tmp_path / "the tree", tmp_path / "build"


def times(tree: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in tree.iterdir() if path.is_file()}


def test_only_changed_files_become_newer_when_the_whole_tree_is_written_anew(folders: tuple[Path, Path]) -> None:
    tree, build = folders
    settle(tree, commit(tree, {"a.cpp": "1", "b.cpp": "1"}), build, os.environ)
    before = times(tree)
    changed = commit(tree, {"a.cpp": "2"})
    for path in tree.glob("*.cpp"):
        path.touch()
    assert settle(tree, changed, build, os.environ) == 1
    after = times(tree)
    assert after["a.cpp"] > before["a.cpp"]
    assert after["b.cpp"] == before["b.cpp"]


def test_old_content_brought_back_is_newer_than_what_replaced_it(folders: tuple[Path, Path]) -> None:
    tree, build = folders
    settle(tree, commit(tree, {"a.cpp": "1"}), build, os.environ)
    settle(tree, commit(tree, {"a.cpp": "2"}), build, os.environ)
    second = times(tree)["a.cpp"]
    back = commit(tree, {"a.cpp": "1"})
    os.utime(tree / "a.cpp", ns=(1, 1))
    settle(tree, back, build, os.environ)
    assert times(tree)["a.cpp"] > second


def test_git_sees_no_edit_afterwards(folders: tuple[Path, Path]) -> None:
    tree, build = folders
    settle(tree, commit(tree, {"a.cpp": "1"}), build, os.environ)
    assert git(tree, "diff-index", "HEAD") == ""


@pytest.mark.parametrize("damage", ["", "{", "[1]", '{"a.cpp": 3}'])
def test_damaged_memory_makes_every_file_new(folders: tuple[Path, Path], damage: str) -> None:
    tree, build = folders
    (build / "stamps.json").write_text(damage)
    assert settle(tree, commit(tree, {"a.cpp": "1", "b.cpp": "1"}), build, os.environ) == 2


def test_wrong_tree_is_an_error(folders: tuple[Path, Path]) -> None:
    tree, build = folders
    commit(tree, {"a.cpp": "1"})
    with pytest.raises(ToolFailed):
        settle(tree, "0" * 40, build, os.environ)
