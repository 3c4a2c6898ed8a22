"""`turbotool vendor` and `turbotool patch` as they are typed: documents and exit codes, on which programs rely."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from command_line import Done, typed, variables_of
from tiny_series import Project, commit, one_model, without_dos, write

from turbotool.errors import SourceError, UsageMistake
from turbotool.upstream import sources
from turbotool.upstream.lock import Upstream, read_lock, write_upstream


@dataclass(frozen=True)
class Here(Project):
    """The patched project, and the command line in it."""

    capsys: pytest.CaptureFixture[str]

    def type(self, *words: str | Path) -> Done:
        return typed([*words, "--json"], self.capsys)


@pytest.fixture
def here(patched: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    return at(patched, monkeypatch, capsys)


def at(project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    for name, value in variables_of(project.layout).items():
        monkeypatch.setenv(name, value)
    return Here(project.layout, project.upstream, capsys)


def test_vendor_says_commit_source_and_path(here: Here) -> None:
    done = here.type("vendor")
    assert (done.code, done.document["source"], done.document["path"]) == (0, "git", str(here.layout.tree))
    assert done.document["commit"] == here.upstream.text("rev-parse", "HEAD")


def test_vendor_calls_an_upstream_without_a_commit_by_its_tag(here: Here) -> None:
    write_upstream(here.layout, replace(read_lock(here.layout).upstream, commit="", tag="b7"))
    done = here.type("vendor")
    assert (done.document["commit"], done.document["tag"], done.document["known_as"]) == ("", "b7", "b7")
    assert "llama.cpp b7 from git" in done.stderr


def test_vendor_takes_a_release_of_any_package(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def learn(wanted: Upstream, *_: object) -> Upstream:
        asked.append((wanted.archive, wanted.subdir, wanted.tag))
        raise SourceError("enough")

    monkeypatch.setattr(sources, "learn_release", learn)
    words = ["vendor", "--source", "pypi", "--ref"]
    assert here.type(*words, "xllamacpp==2026.10.11549", "--relock").code == SourceError.exit_code
    assert here.type(*words, "foo==1.0", "--subdir", "x/y", "--relock").code == SourceError.exit_code
    assert here.type(*words, "0.3.36").code == SourceError.exit_code
    assert asked == [
        ("xllamacpp-2026.10.11549.tar.gz", "xllamacpp-2026.10.11549/thirdparty/llama.cpp", "b11549"),
        ("foo-1.0.tar.gz", "foo-1.0/x/y", ""),
        ("llama_cpp_python-0.3.36.tar.gz", "llama_cpp_python-0.3.36/vendor/llama.cpp", ""),
    ]
    assert here.type(*words, "v1").code == UsageMistake.exit_code
    assert here.type(*words[:3]).code == UsageMistake.exit_code  # a lock of a git source names no release


def test_a_bump_names_what_was_left_out_and_why(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = at(project, monkeypatch, capsys)
    assert here.type("patch", "apply").code == 0
    name = one_model(here)
    done = here.type("vendor", "bump", without_dos(here, "v2"), "--no-verify")
    assert (done.code, done.document["dropped"]) == (0, [name])
    assert done.document["absent"] == [{"patch": name, "missing": ["src/dos.h"]}]
    assert f"fell away, since upstream has no src/dos.h: {name}" in done.stderr
    assert "in git's history" in done.stderr


def test_a_dirty_tree_ends_with_its_own_code_and_the_next_command(here: Here) -> None:
    write(here.layout.tree, "mine.txt", "mine")
    done = here.type("vendor")
    error = done.document["error"]
    assert (done.code, error["class"]) == (14, "DirtyTree")
    assert "mine.txt" in done.stderr
    assert "--force" in error["hint"]


def test_list_and_check_name_each_patch(here: Here) -> None:
    done = here.type("patch", "list")
    assert (done.code, done.document["overlay"]) == (0, ["src/turbo/codec.c"])
    assert "Register the turbo cache types" in done.stderr
    done = here.type("patch", "check")
    patches = done.document["patches"]
    assert (done.code, done.document["ok"], {patch["state"] for patch in patches}) == (0, True, {"clean"})
    path = here.layout.patches / patches[0]["name"]
    path.write_bytes(path.read_bytes().replace(b" line 10\n", b" line ten\n"))
    done = here.type("patch", "check")
    assert (done.code, done.document["ok"]) == (16, False)


def test_export_and_apply_are_inverse_on_the_command_line(here: Here) -> None:
    before = here.snapshot()
    shutil.rmtree(here.layout.tree)
    assert here.type("patch", "apply").code == 0
    done = here.type("patch", "export")
    assert (done.code, done.document["changed"], here.snapshot() == before) == (0, False, True)


def test_the_commands_of_a_conflict_report_work_as_typed(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    path = here.layout.patches / "register-the-turbo-cache-types.patch"
    path.write_bytes(path.read_bytes().replace(b" line 10\n", b" line ten\n"))
    done = here.type("patch", "apply", "--relock")
    assert done.code == 16
    report = done.document["error"]["report"]
    core = Path(report["work_tree"]) / "src/core.cpp"
    core.write_text(core.read_text().replace("line 10\n", "line 10\nrepaired\n"))
    enter, go_on = map(shlex.split, report["commands"]["continue"])
    assert (enter[0], go_on[0]) == ("cd", "turbotool")
    monkeypatch.chdir(enter[1])
    assert here.type(*go_on[1:]).code == 0
    assert "repaired" in (here.layout.tree / "src/core.cpp").read_text()
    assert here.type("patch", "apply").document["cached"] is True


def test_rehearse_ends_with_the_code_of_a_conflict_and_names_what_clashes(here: Here) -> None:
    core = here.upstream.folder / "src/core.cpp"
    core.write_text(core.read_text().replace("line 30\n", "line thirty\n"))
    commit(here.upstream, "next")
    done = here.type("patch", "rehearse", "--onto", "main")
    assert (done.code, done.document["ok"]) == (16, False)
    assert [patch["state"] for patch in done.document["patches"]] == ["clean", "conflict"]
    assert done.document["conflicts"][0]["files"][0]["hunks"][0]["conflict"] is True
    assert "turbotool vendor bump main" in done.stderr
    v1 = f"{here.upstream.folder}@v1"
    fits = here.type("patch", "rehearse", "--onto", v1)
    assert (fits.code, fits.document["ok"]) == (0, True)
    assert (fits.document["droppable"], fits.document["conflicts"]) == ([], [])
    page = here.layout.root / "docs" / "table.md"
    both = here.type("patch", "rehearse", "--onto", v1, "--onto", "main", "--report", page)
    assert (both.code, both.document["ok"]) == (16, False)
    assert [one["ok"] for one in both.document["rehearsals"]] == [True, False]
    assert "--onto main --report" in page.read_text()


def test_a_bump_is_stopped_repaired_and_continued_as_typed(here: Here) -> None:
    core = here.upstream.folder / "src/core.cpp"
    core.write_text(core.read_text().replace("line 10\n", "line ten\n"))
    commit(here.upstream, "next")
    stopped = here.type("vendor", "bump", "main", "--no-verify")
    assert stopped.code == 16
    assert "lock, patches and vendored tree are as before" in stopped.stderr
    assert here.type("patch", "continue", "--no-verify").code == 14  # the markers are still there
    place = Path(stopped.document["error"]["report"]["work_tree"])
    (place / "src/core.cpp").write_text(core.read_text().replace("line ten\n", "line ten\nturbo 10\n"))
    done = here.type("patch", "continue", "--no-verify")
    assert (done.code, done.document["ok"]) == (0, True)
    assert (done.document["proven"], done.document["moved"]) == (False, True)
    assert "NOT built, NOT verified" in done.stderr
    assert here.type("patch", "abort").code == 15
    done = here.type("vendor", "bump", "main")
    assert (done.code, done.document["moved"]) == (0, False)


def test_a_backend_that_there_is_not_is_refused_before_a_bump_begins(here: Here) -> None:
    core = here.upstream.folder / "src/core.cpp"
    core.write_text(core.read_text().replace("line 1\n", "line one\n"))
    commit(here.upstream, "next")
    assert here.type("vendor", "bump", "main", "--backend", "cpy").code == 2
    assert here.type("patch", "continue", "--backend", "cpy").code == 2
    assert here.type("patch", "abort").code == 15  # nothing was begun


@pytest.mark.parametrize("report", [".", "file/page.md"])
def test_a_report_that_cannot_be_written_is_told_before_the_rehearsal(here: Here, report: str) -> None:
    (here.layout.root / "file").write_text("")
    done = here.type("patch", "rehearse", "--onto", "main", "--report", here.layout.root / report)
    assert (done.code, done.document["error"]["class"]) == (2, "UsageMistake")
    assert not here.layout.cache.exists()


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_a_work_tree_that_is_not_there_is_told(here: Here, name: str) -> None:
    here.type("patch", "apply")
    (here.layout.root / "file").write_text("")
    done = here.type("patch", "export", "--from", here.layout.root / name)
    assert (done.code, done.document["error"]["class"]) == (15, "SeriesError")
    assert "there is no work tree" in done.document["error"]["message"]


def test_options_before_a_subcommand_of_vendor_are_refused(here: Here) -> None:
    assert here.type("vendor", "--force", "bump", "main").code == 2
