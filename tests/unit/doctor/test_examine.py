from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest
from fake_tools import commit, fake_site, git, says

from turbotool.build.host import Host
from turbotool.build.tools import find_tools
from turbotool.doctor.document import doctor_document
from turbotool.doctor.examine import DoctorReport, examine
from turbotool.doctor.render import render
from turbotool.layout import Layout
from turbotool.system.documents import as_builtins


def report(layout: Layout, env: dict[str, str], system: str = "Linux") -> DoctorReport:
    return examine(layout, find_tools(env), Host(system, "x86_64", env, ()))


def layout_in(folder: Path) -> Layout:
    return Layout(folder, folder / "work", folder / "cache")


def test_every_candidate_is_listed_and_the_chosen_one_marked(tmp_path: Path) -> None:
    says(tmp_path / "a" / "git", "broken", status=1)
    says(tmp_path / "b" / "git", "git version 2.40.0")
    found = report(layout_in(tmp_path), {"PATH": f"{tmp_path / 'a'}:{tmp_path / 'b'}"})
    (tool,) = [tool for tool in as_builtins(doctor_document(found))["tools"] if tool["name"] == "git"]
    assert [(one["version"], one["chosen"]) for one in tool["candidates"]] == [(None, False), ("2.40.0", True)]


def test_missing_parts_come_with_the_command_that_installs_them(tmp_path: Path) -> None:
    says(tmp_path / "bin" / "apt-get", "apt 2.6.1")
    found = {backend.name: backend for backend in report(layout_in(tmp_path), {"PATH": str(tmp_path / "bin")}).backends}
    assert found["cpu"].remedy == "sudo apt-get install build-essential"
    assert not any(backend.ok for backend in found.values())


def test_unfinished_and_finished_builds_are_told_apart(tmp_path: Path) -> None:
    site = fake_site(tmp_path)
    site.layout.build("vulkan").mkdir(parents=True)
    site.build()
    cpu, vulkan = report(site.layout, dict(site.env)).builds
    assert (cpu["finished"], vulkan["finished"]) == (True, False)


def test_edits_in_the_vendored_tree_are_counted(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    commit(layout.tree, {"a": "1"})
    (layout.tree / "a").write_text("2")
    tree = report(layout, dict(os.environ)).tree
    assert (tree["present"], tree["edited"], tree["applied"]) == (True, 1, False)
    assert git(layout.tree, "status", "--porcelain") == "M a"


def test_looking_at_the_tree_takes_no_lock_and_lets_no_configuration_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = layout_in(tmp_path)
    commit(layout.tree, {"a": "1"})
    (layout.tree / ".git" / "index.lock").touch()  # somebody's git is at work
    os.utime(layout.tree / "a", ns=(1, 1))  # what makes git refresh its index where it may
    index = (layout.tree / ".git" / "index").read_bytes()
    (tmp_path / "config").write_text("[broken\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    assert report(layout, dict(os.environ)).tree["edited"] == 0
    (layout.tree / ".git" / "index.lock").unlink()
    assert report(layout, dict(os.environ)).tree["edited"] == 0
    assert (layout.tree / ".git" / "index").read_bytes() == index


@pytest.mark.parametrize("columns", ["80", "40"])
def test_text_fits_a_terminal_of_80_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    tables = render(report(layout_in(tmp_path), dict(os.environ))).split("turbotool   ")[0]
    assert max(len(line.rstrip()) for line in tables.splitlines()) <= 80
    assert "cmake" in tables


def pinned(folder: Path, day: str) -> Layout:
    layout = layout_in(folder)
    layout.lock_file.parent.mkdir(parents=True)
    up = f'[upstream]\nsource = "pypi"\ncommit = "c0ffee"\ntree = "1"\n{day}\n'
    layout.lock_file.write_text(f'{up}[series]\ntree = "2"\noverlay = "3"\npatches = []\n')
    return layout


@pytest.mark.parametrize(
    ("day", "age", "warned"),
    [('date = "2026-10-02"', 60, False), ('date = "2026-10-01"', 61, True), ("", None, False)],
)
def test_a_pin_older_than_60_days_is_warned_about_with_the_next_command(
    tmp_path: Path, day: str, age: int | None, warned: bool
) -> None:
    found = examine(pinned(tmp_path, day), find_tools({}), Host("Linux", "x86_64", {}, ()), date(2026, 12, 1))
    assert found.pin["age_days"] == age
    assert ["turbotool patch rehearse --onto master" in line for line in found.warnings] == [True] * warned
    assert ("61 days old" in render(found)) is warned
    assert ("c0ffee from pypi, age unknown" in render(found)) is (age is None)


def test_a_pin_without_a_commit_is_called_by_its_tag(tmp_path: Path) -> None:
    layout = pinned(tmp_path, 'tag = "b7"')
    layout.lock_file.write_text(layout.lock_file.read_text().replace('commit = "c0ffee"\n', ""))
    found = report(layout, {})
    assert "b7 from pypi, age unknown" in render(found)
    pin = as_builtins(doctor_document(found))["pin"]
    assert (pin["commit"], pin["tag"], pin["known_as"]) == ("", "b7", "b7")


def test_a_day_in_the_lock_that_is_none_is_told(tmp_path: Path) -> None:
    found = report(pinned(tmp_path, 'date = "2026-13-01"'), {})
    assert "'2026-13-01'" in str(found.pin["error"])
    assert found.warnings == ()
