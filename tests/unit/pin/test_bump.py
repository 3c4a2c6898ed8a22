"""Moving the pin: as a whole, at the end, proven; whatever fails before leaves it and the attempt where they are."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_series import FILES, LINES, QUIET, REGISTER, ROTATE, Project, one_model, release, without_dos, write

from turbotool.errors import CompileFailed, DirtyTree, HashMismatch, PatchConflict, SeriesError
from turbotool.layout import Layout
from turbotool.pin import bump
from turbotool.pin.attempt import find_attempt
from turbotool.pin.bump import Bumped, LeftOut, give_up, go_on
from turbotool.pin.document import bump_document
from turbotool.pin.reference import parse_reference
from turbotool.series import files as series
from turbotool.series.apply import ensure_applied
from turbotool.series.check import check_series
from turbotool.series.export import export
from turbotool.system.output import Output
from turbotool.system.session import Session
from turbotool.upstream import journal
from turbotool.upstream.lock import read_lock

MERGES = {"src/core.cpp": LINES.replace("line 8\n", "line eight\n")}
CLASHES = {"src/core.cpp": LINES.replace("line 10\n", "line ten\n")}


def bumped(project: Project, ref: str, backend: str | None = None) -> Bumped:
    return bump.bump(project.session, parse_reference(project.layout, ref), backend=backend)


def pinned(project: Project) -> tuple[dict[str, bytes], str, list[str]]:
    return project.snapshot(), project.tree.text("rev-parse", "HEAD"), project.tree.status()


def proof(monkeypatch: pytest.MonkeyPatch, check: Callable[[Layout, str], None]) -> None:
    monkeypatch.setattr(bump, "prove", lambda there, backend: check(there.layout, backend))


def test_a_bump_moves_lock_patches_and_tree_after_the_proof(patched: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    before, proven = pinned(patched), []

    def prove(there: Layout, backend: str) -> None:
        assert pinned(patched) == before
        assert ensure_applied(Session(there, QUIET)).cached
        proven.append(backend)

    proof(monkeypatch, prove)
    ref = release(patched, "v2", MERGES)
    done = bumped(patched, ref, "cpu")
    assert (proven, done.proven, done.moved) == (["cpu"], True, True)
    assert (done.patches, done.dropped) == ((REGISTER, ROTATE), ())
    lock = read_lock(patched.layout)
    assert lock.upstream.commit == patched.upstream.text("rev-parse", "v2")
    assert (lock.upstream.tree, lock.series.tree) == (patched.upstream.tree_of("v2"), done.tree)
    assert "# comment" in patched.layout.lock_file.read_text()
    text = (patched.layout.tree / "src/core.cpp").read_text()
    assert "line eight\n" in text
    assert "turbo 10\n" in text
    assert (patched.layout.patches / "README.md").read_text() == "why\n"
    assert find_attempt(patched.layout) is None


def test_after_a_bump_every_patch_is_clean_and_the_round_trip_exact(patched: Project) -> None:
    bumped(patched, release(patched, "v2", MERGES))
    assert {trial.state for trial in check_series(patched.session).trials} == {"clean"}
    assert ensure_applied(patched.session).cached
    before = patched.snapshot()
    shutil.rmtree(patched.layout.tree)
    ensure_applied(patched.session)
    assert not export(patched.session).changed
    assert patched.snapshot() == before


def test_a_patch_about_something_that_upstream_does_not_have_falls_away_and_is_named(project: Project) -> None:
    ensure_applied(project.session)
    name = one_model(project)
    done = bumped(project, without_dos(project, "v2"))
    assert (done.patches, done.dropped) == (("come-last.patch",), (name,))
    assert done.absent == (LeftOut(name, ("src/dos.h",)),)
    assert bump_document(done).absent == done.absent
    assert not (project.layout.patches / name).exists()
    assert (project.layout.overlay / "src/dos/turbo.c").is_file()  # nobody can tell whether another patch uses it
    assert check_series(project.session).error() is None


def test_a_patch_that_upstream_has_by_now_is_not_called_absent(patched: Project) -> None:
    done = bumped(patched, release(patched, "v2", {"src/core.cpp": LINES.replace("line 10\n", "line 10\nturbo 10\n")}))
    assert (done.dropped, done.absent) == ((REGISTER,), ())


def test_an_absent_patch_stays_out_when_a_later_conflict_is_repaired(project: Project) -> None:
    ensure_applied(project.session)
    name = one_model(project)
    (project.upstream.folder / "src/dos.h").unlink()
    ref = release(project, "v2", {"src/cache.cpp": FILES["src/cache.cpp"].replace("cache 5\n", "cache five\n")})
    with pytest.raises(PatchConflict) as caught:
        bumped(project, ref)
    place = Path(str((caught.value.report or {})["work_tree"]))
    write(place, "src/cache.cpp", FILES["src/cache.cpp"].replace("cache 5\n", "turbo five\n"))
    done = go_on(project.session, skip=False)
    assert done is not None
    assert (done.patches, done.dropped) == (("come-last.patch",), (name,))
    assert [one.patch for one in done.absent] == [name]


def test_without_a_proof_the_bump_says_what_is_not_proven(patched: Project, capsys: pytest.CaptureFixture[str]) -> None:
    reference = parse_reference(patched.layout, release(patched, "v2", MERGES))
    assert not bump.bump(Session(patched.layout, Output()), reference, backend=None).proven
    assert "not proven: nothing was compiled" in capsys.readouterr().err


def test_a_failed_proof_keeps_the_pin_and_the_attempt_until_it_is_repaired(
    patched: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = pinned(patched)

    def prove(there: Layout, backend: str) -> None:
        if "line nine" not in (there.tree / "src/core.cpp").read_text():
            raise CompileFailed("core.cpp:9: no")

    proof(monkeypatch, prove)
    with pytest.raises(CompileFailed):
        reference = parse_reference(patched.layout, release(patched, "v2", MERGES))
        bump.bump(Session(patched.layout, Output()), reference, backend="cpu")
    attempt = find_attempt(patched.layout)
    assert attempt is not None
    there = attempt.layout(patched.layout)
    assert f"its tree is {there.tree}" in capsys.readouterr().err
    assert pinned(patched) == before
    with pytest.raises(CompileFailed):  # it is proven for the same backend as before
        go_on(patched.session, skip=False)
    repaired = Project(there, patched.upstream)
    repaired.edit("src/core.cpp", "line 9\n", "line nine\n")
    with pytest.raises(DirtyTree, match="not committed"):
        go_on(patched.session, skip=False)
    repaired.commit("Follow upstream")
    done = go_on(patched.session, skip=False)
    assert done is not None
    assert done.proven
    assert done.patches == (REGISTER, ROTATE, "follow-upstream.patch")
    assert ensure_applied(patched.session).cached


def stopped(project: Project, ref: str) -> Path:
    with pytest.raises(PatchConflict) as caught:
        bumped(project, ref)
    report = caught.value.report or {}
    assert report["old_base"] == read_lock(project.layout).upstream.commit
    assert report["new_base"] == project.upstream.text("rev-parse", "main")
    return Path(str(report["work_tree"]))


def test_a_conflict_is_repaired_and_continued(patched: Project) -> None:
    before = pinned(patched)
    place = stopped(patched, release(patched, "v2", CLASHES))
    assert pinned(patched) == before
    with pytest.raises(SeriesError, match=r"bump to .* is not finished"):
        bumped(patched, "main")
    (place / "src/core.cpp").write_text(LINES.replace("line 10\n", "line ten\nturbo 10\n"))
    assert pinned(patched) == before
    done = go_on(patched.session, skip=False)
    assert done is not None
    assert (done.patches, done.dropped) == ((REGISTER, ROTATE), ())
    assert "line ten\nturbo 10\n" in (patched.layout.tree / "src/core.cpp").read_text()
    assert ensure_applied(patched.session).cached


def test_the_report_alone_says_what_the_patch_does_where_it_clashes(patched: Project) -> None:
    with pytest.raises(PatchConflict) as caught:
        bumped(patched, release(patched, "v2", CLASHES))
    path = Path(str((caught.value.report or {})["path"]))
    assert path.read_bytes() == (patched.layout.patches / REGISTER).read_bytes()
    said = [line.strip() for line in caught.value.message.splitlines()]
    at = said.index("the patch's own change:")
    assert said[at - 2 : at + 4] == ["-line 10", "+line ten", said[at], "line 10", "+turbo 10", "line 11"]
    assert f"the whole patch: {path}" in said
    assert any("<<<<<<< to |||||||" in line for line in said)


def test_a_file_that_is_gone_is_not_left_to_become_a_file_of_ours(patched: Project) -> None:
    (patched.upstream.folder / "src/core.cpp").unlink()
    place = stopped(patched, release(patched, "v2", {}))
    assert not (place / "src/core.cpp").exists()
    with pytest.raises(SeriesError, match="nothing is changed") as caught:
        go_on(patched.session, skip=False)
    assert caught.value.hint == "turbotool patch skip"
    with pytest.raises(PatchConflict):  # the second patch changes that file too, and another one
        go_on(patched.session, skip=True)
    done = go_on(patched.session, skip=False)
    assert done is not None
    assert (done.patches, done.dropped) == ((ROTATE,), (REGISTER,))
    assert not (patched.layout.tree / "src/core.cpp").exists()
    assert "TWO" in (patched.layout.tree / "src/dos.h").read_text()


def test_a_patch_is_skipped_or_the_bump_aborted(patched: Project) -> None:
    before = pinned(patched)
    ref = release(patched, "v2", CLASHES)
    stopped(patched, ref)
    assert give_up(patched.session) is not None
    assert (give_up(patched.session), pinned(patched)) == (None, before)
    stopped(patched, ref)
    done = go_on(patched.session, skip=True)
    assert done is not None
    assert (done.patches, done.dropped) == ((ROTATE,), (REGISTER,))
    assert series.names(patched.layout) == (ROTATE,)


def test_a_patch_that_upstream_took_falls_away(patched: Project, capsys: pytest.CaptureFixture[str]) -> None:
    ref = release(patched, "v2", {"src/core.cpp": LINES.replace("line 10\n", "line 10\nturbo 10\n")})
    done = bump.bump(Session(patched.layout, Output()), parse_reference(patched.layout, ref), backend=None)
    assert (done.patches, done.dropped) == ((ROTATE,), (REGISTER,))
    assert f"{REGISTER} can be dropped" in capsys.readouterr().err


def test_edits_in_the_vendored_tree_or_in_patches_stop_a_bump_before_and_after(patched: Project) -> None:
    ref = release(patched, "v2", CLASHES)
    patched.edit("src/cache.cpp", "cache 3\n", "mine\n")
    with pytest.raises(DirtyTree, match=r"src/cache\.cpp"):
        bumped(patched, ref)
    patched.edit("src/cache.cpp", "mine\n", "cache 3\n")
    place = stopped(patched, ref)
    (place / "src/core.cpp").write_text(LINES.replace("line 10\n", "line ten\nturbo 10\n"))
    path = patched.layout.patches / ROTATE
    original = path.read_bytes()
    path.write_bytes(original.replace(b"turbo 30", b"TURBO 30"))
    with pytest.raises((SeriesError, HashMismatch), match="changed since the bump"):
        go_on(patched.session, skip=False)
    path.write_bytes(original)
    assert go_on(patched.session, skip=False) is not None


def test_the_pin_itself_is_nothing_to_do(patched: Project) -> None:
    before = pinned(patched)
    assert not bumped(patched, f"{patched.upstream.folder}@v1").moved
    assert (pinned(patched), find_attempt(patched.layout)) == (before, None)


@pytest.mark.parametrize("step", ["_finish_bump", "discard"])
def test_a_bump_that_was_killed_while_it_moved_the_pin_is_finished_by_the_next_run(
    patched: Project, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    ref = release(patched, "v2", MERGES)

    class KilledError(BaseException):
        pass

    def killed(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patching:
        patching.setattr(journal, step, killed)
        with pytest.raises(KilledError):
            bumped(patched, ref)
    write(patched.layout.state, "lock.json", "{}")
    assert ensure_applied(patched.session).cached
    assert read_lock(patched.layout).upstream.commit == patched.upstream.text("rev-parse", "v2")
    assert "line eight\n" in (patched.layout.tree / "src/core.cpp").read_text()
    assert find_attempt(patched.layout) is None
