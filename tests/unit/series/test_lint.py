"""Lint, new and log: the policy on patches, and a new patch from what is edited."""

from __future__ import annotations

import os
import re
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from fake_tools import real
from tiny_series import Project, commit, write

from turbotool.errors import SeriesError
from turbotool.series import files as series
from turbotool.series.apply import ensure_applied
from turbotool.series.check import check_series
from turbotool.series.export import export
from turbotool.series.lint import Linted, lint
from turbotool.series.new import Message, new_patch, subject_of

WHY = "Because a test needs it."
GOOD = Message("Count the nodes", WHY, "fix", "https://example.org/pull/1", "upstream counts them")
NO_TOOL = {"PATH": "", "CLANG_FORMAT": ""}


def problems(project: Project, env: dict[str, str] | None = None) -> list[str]:
    return [f"{item.name}: {item.message}" for item in linted(project, env).problems]


def linted(project: Project, env: dict[str, str] | None = None) -> Linted:
    return lint(project.layout, env or {"CLANG_FORMAT": real("true")})


def edit_and_export(project: Project, message: str, lines: str, name: str = "src/core.cpp") -> None:
    ensure_applied(project.session)
    path = project.layout.tree / name
    path.write_text(path.read_text() + lines)
    commit(project.tree, message)
    export(project.session)


def test_a_patch_with_a_reason_in_full_has_no_problem(project: Project) -> None:
    edit_and_export(project, GOOD.text(), "call();\n")
    assert problems(project) == []
    assert linted(project).error() is None


@pytest.mark.parametrize(
    ("message", "lines", "said"),
    [
        (Message("No reason", WHY, "fun", "none", "never"), "x\n", "Reason is 'fun'"),
        (Message("No link", WHY, "fix", "see issue", "never"), "x\n", "neither a link nor none"),
        (Message("No condition", WHY), "x\n", "Drop-when is 'TODO'"),
        (Message("No why", "TODO", "fix", "none", "never"), "x\n", "does not say why"),
        (GOOD, "x \n", "ends in white space"),
        (GOOD, "\tx\n", "indented with a tab"),
        (GOOD, "x\n" * 61, "61 lines in a row, more than 60: our own code belongs in the overlay"),
        (GOOD, "x\n" * 401, "changes 401 lines, more than 400"),
    ],
)
def test_each_breach_of_the_policy_is_named(project: Project, message: Message, lines: str, said: str) -> None:
    edit_and_export(project, message.text(), lines)
    (first, *_) = problems(project)
    assert any(said in problem for problem in problems(project))
    assert first.startswith(series.names(project.layout)[0])
    assert isinstance(linted(project).error(), SeriesError)


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "src/../run.sh", "./run.sh", "src/", ".", "src\\\\core.cpp"])
def test_a_path_that_is_not_inside_upstream_is_named(project: Project, path: str) -> None:
    edit_and_export(project, replace(GOOD, needs=(path,)).text(), "x\n")
    assert any(f"Needs is {path!r}, which is not one" in problem for problem in problems(project))


@pytest.mark.parametrize("line", ["Needs:run.sh", "needs: run.sh", "Need: run.sh"])
def test_a_line_that_only_looks_like_the_trailer_is_named(project: Project, line: str) -> None:
    edit_and_export(project, GOOD.text() + line + "\n", "x\n")
    assert f"count-the-nodes.patch: {line!r} is no trailer: `Needs: PATH`" in problems(project)


def test_a_path_that_the_pin_does_not_have_is_an_error_of_lint_and_check(project: Project) -> None:
    edit_and_export(project, replace(GOOD, needs=("src/core.cpp", "src")).text(), "x\n")
    assert (problems(project), check_series(project.session).error()) == ([], None)
    path = project.layout.patches / "count-the-nodes.patch"
    path.write_bytes(path.read_bytes().replace(b"Needs: src\n", b"Needs: src/gone.cpp\n"))
    assert problems(project) == ["count-the-nodes.patch: Needs: upstream has no src/gone.cpp"]
    error = check_series(project.session).error()
    assert isinstance(error, SeriesError)
    assert "upstream has no src/gone.cpp" in error.message
    with pytest.raises(SeriesError, match=r"upstream has no src/gone\.cpp"):
        ensure_applied(project.session, relock=True)
    shutil.rmtree(project.layout.tree)
    assert linted(project).skipped == (
        f"what patches need of upstream: nothing is vendored at {project.layout.tree}; turbotool vendor",
    )


def test_our_own_file_is_nothing_that_upstream_has(project: Project) -> None:
    write(project.layout.overlay, "src/own.c", "int own;\n")
    ensure_applied(project.session, relock=True)
    edit_and_export(project, replace(GOOD, needs=("src/own.c",)).text(), "x\n")
    assert problems(project) == ["count-the-nodes.patch: Needs: upstream has no src/own.c"]
    assert [trial.state for trial in check_series(project.session).trials] == ["absent"]


def test_a_missing_trailer_and_a_deleted_file_are_named(project: Project) -> None:
    ensure_applied(project.session)
    (project.layout.tree / "run.sh").unlink()
    commit(project.tree, "Remove it\n\nwhy\n\nReason: fix\nUpstream: none")
    export(project.session)
    found = problems(project)
    assert "remove-it.patch: its message has no `Drop-when:` trailer" in found
    assert any("it deletes run.sh" in problem for problem in found)


@pytest.mark.parametrize(("text", "said"), [("a \n", "line 1 ends in white space"), ("a", "last line has no end")])
def test_stray_white_space_in_the_overlay_is_named(project: Project, text: str, said: str) -> None:
    write(project.layout.overlay, "src/own.c", text)
    assert any(said in problem for problem in problems(project))


def formatter(path: Path, script: str) -> dict[str, str]:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {"CLANG_FORMAT": str(path)}


def test_formatting_follows_upstreams_style_or_it_is_said_why_not(patched: Project, tmp_path: Path) -> None:
    assert any("turbotool vendor" in text for text in linted(patched).skipped)  # upstream has no .clang-format
    write(patched.layout.tree, ".clang-format", "BasedOnStyle: LLVM\n")
    says = 'case "$3" in file:*) ;; --style=file:*/.clang-format) ;; *) exit 9;; esac; '
    changes = formatter(tmp_path / "changes", says + 'echo "$4:3:1: error: code should be clang-formatted"; exit 1')
    assert any(
        problem.startswith("overlay/src/turbo/codec.c: clang-format") and problem.endswith("changes lines 3")
        for problem in problems(patched, changes)
    )
    old = formatter(tmp_path / "old", 'echo "x:1:1: error: invalid boolean"; echo "Error reading x: Invalid argument"')
    assert not [problem for problem in problems(patched, old) if "clang-format" in problem]
    assert "does not understand" in linted(patched, old).skipped[0]
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr("turbotool.series.lint.shutil.which", lambda *_, **__: None)
        assert "there is no clang-format" in linted(patched, NO_TOOL).skipped[0]


def test_new_makes_the_edits_the_last_patch_with_every_trailer(patched: Project) -> None:
    patched.edit("src/cache.cpp", "cache 3\n", "cache three\n")
    write(patched.layout.tree, "src/turbo/more.c", "int more;\n")
    name, done = new_patch(patched.session, GOOD)
    assert (name, done.patches[-1]) == ("count-the-nodes.patch", "count-the-nodes.patch")
    assert "src/turbo/more.c" in done.overlay
    patch = series.load(patched.layout)[-1]
    assert patch.trailers == {
        "Reason": "fix",
        "Upstream": "https://example.org/pull/1",
        "Drop-when": "upstream counts them",
    }
    assert ensure_applied(patched.session).cached
    assert not [text for text in problems(patched) if text.startswith(name)]


def test_a_message_that_is_open_is_refused_by_lint_until_it_is_written(patched: Project) -> None:
    patched.edit("src/cache.cpp", "cache 3\n", "cache three\n")
    name, _ = new_patch(patched.session, Message(subject_of("count-the-nodes")))
    found = [text for text in problems(patched) if text.startswith(name)]
    assert any("Drop-when is 'TODO'" in text for text in found)
    assert any("does not say why" in text for text in found)


def test_new_refuses_what_makes_no_patch_and_keeps_the_edits(patched: Project) -> None:
    with pytest.raises(SeriesError, match="nothing is edited"):
        new_patch(patched.session, GOOD)
    own = write(patched.layout.tree, "src/turbo/more.c", "int more;\n")
    with pytest.raises(SeriesError, match="no file of upstream is edited"):
        new_patch(patched.session, GOOD)
    assert own.exists()
    patched.edit("src/cache.cpp", "cache 3\n", "cache three\n")
    with pytest.raises(SeriesError, match="already"):
        new_patch(patched.session, Message("Register the turbo cache types"))
    before, head = patched.snapshot(), patched.tree.text("rev-parse", "HEAD")
    with pytest.raises(SeriesError):  # a message that a patch cannot carry
        new_patch(patched.session, Message("Cut", "before\n---\nafter", "fix", "none", "never"))
    assert (patched.snapshot(), patched.tree.text("rev-parse", "HEAD")) == (before, head)
    assert "cache three" in (patched.layout.tree / "src/cache.cpp").read_text()
    assert own.exists()


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("fix-k-shift", "Fix k shift"),
        ("fix-k-shift.patch", "Fix k shift"),
        ("Fix K-shift for turbo", "Fix K-shift for turbo"),
    ],
)
def test_a_name_or_a_subject_gives_the_subject(name: str, subject: str) -> None:
    assert subject_of(name) == subject


def test_the_real_series_keeps_to_the_policy() -> None:
    """Formatting apart, which needs the vendored tree."""
    from turbotool.layout import find_layout

    with pytest.MonkeyPatch.context() as patching:
        patching.delenv("TURBOTOOL_ROOT", raising=False)
        found = lint(find_layout(), {**os.environ, "CLANG_FORMAT": real("true")})
    assert found.patches > 0
    assert found.problems == ()


def test_the_table_of_the_series_names_every_patch_in_its_order() -> None:
    root = Path(__file__).parents[3] / "patches"
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|", (root / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    lines = (root / "series").read_text(encoding="utf-8").splitlines()
    assert [f"{row}.patch" for row in rows] == [line for line in lines if line and not line.startswith("#")]
