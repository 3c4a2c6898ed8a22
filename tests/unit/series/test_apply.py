"""Apply, check and export: one commit a patch, exact inverses, nothing of anybody's lost."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_series import EMPTY, FILES, LINES, QUIET, REGISTER, ROTATE, TRAILERS, Project, commit, make_project, write

from turbotool.errors import DirtyTree, HashMismatch, PatchConflict, SeriesError, TurbotoolError
from turbotool.series import files as series
from turbotool.series.apply import ensure_applied
from turbotool.series.check import Checked, check_series
from turbotool.series.export import export
from turbotool.series.patchfile import read_patch, slug
from turbotool.series.resume import abort, resume
from turbotool.system.git import BASE_REF
from turbotool.system.session import Session
from turbotool.upstream import journal
from turbotool.upstream.journal import Journal, Move, begin, unfinished
from turbotool.upstream.lock import read_lock
from turbotool.upstream.tree import ensure_vendored


def states(checked: Checked) -> dict[str, str]:
    return {trial.name: trial.state for trial in checked.trials}


def upgrade(project: Project, name: str, old: str, new: str) -> None:
    """Another upstream: `old` became `new` in one file (or the file is gone, or moved), locked and vendored."""
    path = project.upstream.folder / name
    if not old:
        path.unlink() if not new else path.rename(project.upstream.folder / new)
    else:
        path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))
    head = commit(project.upstream, "next release")
    text = project.layout.lock_file.read_text()
    locked = read_lock(project.layout).upstream
    text = text.replace(f'commit = "{locked.commit}"', f'commit = "{head}"')
    first, found, rest = text.partition(f'tree = "{locked.tree}"')
    assert found
    project.layout.lock_file.write_text(first + f'tree = "{project.upstream.tree_of(head)}"' + rest)
    ensure_vendored(project.session)


def test_an_empty_series_gives_the_base_tree(project: Project) -> None:
    done = ensure_applied(project.session)
    assert done.tree == read_lock(project.layout).upstream.tree
    assert not done.cached
    assert ensure_applied(project.session).cached


def test_a_fresh_apply_gives_the_same_commits_as_before(patched: Project) -> None:
    head = patched.tree.text("rev-parse", "HEAD")
    shutil.rmtree(patched.layout.tree)
    done = ensure_applied(patched.session)
    assert (done.head, done.tree) == (head, read_lock(patched.layout).series.tree)
    subjects = patched.tree.text("log", "--reverse", "--format=%s", f"{BASE_REF}..HEAD").splitlines()
    assert subjects == [
        "Add the turbotool overlay",
        "Register the turbo cache types",
        "Rotate what is stored, in K and V",
    ]


def test_applying_again_is_quick_and_touches_nothing(patched: Project) -> None:
    path = patched.layout.tree / "src/core.cpp"
    before = path.stat().st_mtime_ns
    started = time.monotonic()
    assert ensure_applied(patched.session).cached
    assert time.monotonic() - started < 2
    assert path.stat().st_mtime_ns == before


def test_apply_touches_only_files_that_differ(patched: Project) -> None:
    patched.tree.run("checkout", "--quiet", "--detach", BASE_REF)
    times = {name: (patched.layout.tree / name).stat().st_mtime_ns for name in FILES}
    assert not ensure_applied(patched.session).cached
    moved = {name for name in FILES if (patched.layout.tree / name).stat().st_mtime_ns != times[name]}
    assert moved == {"src/core.cpp", "src/dos.h"}


def test_export_after_apply_changes_no_byte(patched: Project) -> None:
    before = patched.snapshot()
    assert not export(patched.session).changed
    shutil.rmtree(patched.layout.tree)
    ensure_applied(patched.session)
    assert not export(patched.session).changed
    assert patched.snapshot() == before


def test_patches_hold_call_sites_only_and_new_files_are_overlay(patched: Project) -> None:
    assert series.names(patched.layout) == (REGISTER, ROTATE)
    text = (patched.layout.patches / REGISTER).read_text()
    assert "codec.c" not in text
    assert text.startswith(
        "From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001\nFrom: turbotool contrib"
    )
    assert (patched.layout.overlay / "src/turbo/codec.c").read_text() == "int codec;\n"
    assert patched.layout.series.read_text().startswith("# order\n\n# about the patches\n" + REGISTER)


def test_carriage_returns_survive_the_round_trip(patched: Project) -> None:
    assert (patched.layout.tree / "src/dos.h").read_bytes() == b"one\r\nTWO\r\nthree\r\n"
    assert b"+TWO\r\n" in (patched.layout.patches / ROTATE).read_bytes()


def test_comments_stay_with_their_patch(patched: Project) -> None:
    layout = patched.layout
    layout.series.write_text(f"# head\n\n{REGISTER}\n# about rotation\n{ROTATE}\n# end\n")
    assert (
        series.rewritten(layout, [ROTATE, "new.patch"]) == f"# head\n\n# about rotation\n{ROTATE}\nnew.patch\n# end\n"
    )
    assert series.rewritten(layout, [REGISTER, ROTATE]) == layout.series.read_text()


def test_removing_a_commit_removes_its_patch_and_its_overlay_file(patched: Project) -> None:
    patched.tree.run("reset", "--quiet", "--hard", BASE_REF)
    patched.edit("src/cache.cpp", "cache 3\n", "cache three\n")
    patched.commit("Only this")
    assert export(patched.session).patches == ("only-this.patch",)
    assert [path.name for path in patched.layout.patches.glob("*.patch")] == ["only-this.patch"]
    assert series.overlay(patched.layout) == ()
    assert (patched.layout.patches / "README.md").exists()
    assert ensure_applied(patched.session).cached


def test_export_refuses_what_is_not_committed(patched: Project) -> None:
    write(patched.layout.tree, "src/core.cpp", "mine\n")
    before = patched.snapshot()
    with pytest.raises(DirtyTree, match=r"src/core\.cpp"):
        export(patched.session)
    assert patched.snapshot() == before


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("Cut here\n\nbefore\n---\nafter", "does not survive as a patch"),
        ("Impersonate\n\nFrom: a@b.c\n\nbody", "does not survive as a patch"),
        ("Quote\n\ndiff --git a/x b/x\n", r"quote\.patch:6 is malformed"),
        ("Two\nlines", "does not survive as a patch"),
    ],
)
def test_a_message_that_a_patch_cannot_carry_is_refused_and_nothing_is_written(
    patched: Project, message: str, said: str
) -> None:
    patched.edit("src/cache.cpp", "cache 3\n", "cache three\n")
    commit(patched.tree, message)
    before = patched.snapshot()
    with pytest.raises(SeriesError, match=said):
        export(patched.session)
    assert patched.snapshot() == before


@pytest.mark.parametrize(
    "message", ["[tag] Größe: 1/2", "Indent\n\n  two\n\tcpp: tab\n\n> quoted", "Dashes\n\n----\n-- \nFrom here"]
)
def test_a_message_that_only_looks_special_comes_back_as_it_was(patched: Project, message: str) -> None:
    patched.edit("src/cache.cpp", "cache 3\n", "cache three\n")
    commit(patched.tree, message)
    written = patched.tree.text("log", "-1", "--format=%B")
    export(patched.session)
    shutil.rmtree(patched.layout.tree)
    ensure_applied(patched.session)
    assert patched.tree.text("log", "-1", "--format=%B") == written


def test_a_merge_is_not_a_series(patched: Project) -> None:
    first = patched.tree.text("rev-parse", "HEAD")
    patched.tree.run("checkout", "--quiet", "--detach", BASE_REF)
    write(patched.layout.tree, "src/other.c", "int other;\n")
    patched.commit("Other")
    patched.tree.run("merge", "--quiet", "--no-edit", first)
    with pytest.raises(SeriesError, match="merge"):
        export(patched.session)


def test_an_edited_patch_is_a_mismatch_that_names_both_hashes_until_relocked(patched: Project) -> None:
    path = patched.layout.patches / REGISTER
    path.write_text(path.read_text().replace("+turbo 10", "+TURBO 10"))
    was = read_lock(patched.layout).series.patches[0].sha256
    with pytest.raises(HashMismatch) as caught:
        ensure_applied(patched.session)
    assert was in caught.value.message
    assert read_patch(path).sha256 in caught.value.message
    done = ensure_applied(patched.session, relock=True)
    assert "TURBO 10" in (patched.layout.tree / "src/core.cpp").read_text()
    assert read_lock(patched.layout).series.tree == done.tree
    assert ensure_applied(patched.session).cached


def test_an_edited_overlay_file_and_its_mode_are_locked(patched: Project) -> None:
    path = patched.layout.overlay / "src/turbo/codec.c"
    path.chmod(0o755)
    with pytest.raises(HashMismatch, match="overlay"):
        ensure_applied(patched.session)
    path.chmod(0o644)
    assert ensure_applied(patched.session).cached
    path.write_text("int other;\n")
    with pytest.raises(HashMismatch, match="overlay"):
        ensure_applied(patched.session)


def test_overlay_placeholders_do_not_count(project: Project) -> None:
    (project.layout.overlay / ".gitkeep").touch()
    assert series.overlay_hash(project.layout) == EMPTY


@pytest.mark.parametrize("name", ["src/core.cpp", "run.sh/inside.c", "kept.log"])
def test_the_overlay_never_replaces_an_upstream_file(project: Project, name: str) -> None:
    write(project.layout.overlay, name, "mine\n")
    with pytest.raises(SeriesError, match="may only add"):
        ensure_applied(project.session, relock=True)
    assert (project.layout.tree / "src/core.cpp").read_text() == LINES


def test_commits_and_edits_on_top_are_kept(patched: Project) -> None:
    patched.edit("src/cache.cpp", "cache 3\n", "cache three\n")
    with pytest.raises(DirtyTree):
        ensure_applied(patched.session)
    patched.commit("My next idea")
    with pytest.raises(DirtyTree, match="My next idea"):
        ensure_applied(patched.session)
    assert "cache three" in (patched.layout.tree / "src/cache.cpp").read_text()
    ensure_applied(patched.session, force=True)
    assert "cache three" not in (patched.layout.tree / "src/cache.cpp").read_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("missing.patch\n", "not in"),
        (f"{REGISTER}\n{REGISTER}\n", "2 times"),
        ("../evil.patch\n", "not the name"),
        ("notes.txt\n", "not the name"),
    ],
)
def test_a_malformed_series_is_a_series_error(patched: Project, text: str, said: str) -> None:
    patched.layout.series.write_text(text)
    with pytest.raises(SeriesError, match=said):
        ensure_applied(patched.session)


@pytest.mark.parametrize("cut", [0, 100, 400, -30])
def test_a_cut_off_patch_is_malformed_and_named(patched: Project, cut: int) -> None:
    path = patched.layout.patches / REGISTER
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(SeriesError, match=REGISTER):
        ensure_applied(patched.session, relock=True)


@pytest.mark.parametrize("away", ["../outside.cpp", "src/../../outside.cpp"])
def test_a_patch_changes_no_file_outside_the_tree(patched: Project, away: str) -> None:
    outside = patched.layout.vendor / "outside.cpp"
    before = (patched.tree.run("show", "HEAD~1:src/core.cpp")).output
    outside.write_text(before)  # the patch would fit
    path = patched.layout.patches / ROTATE
    path.write_bytes(path.read_bytes().replace(b"src/core.cpp", away.encode()))
    with pytest.raises(TurbotoolError):
        ensure_applied(patched.session, relock=True)
    assert outside.read_text() == before


def test_check_finds_everything_in_one_pass_and_touches_nothing(patched: Project) -> None:
    assert states(check_series(patched.session)) == {REGISTER: "clean", ROTATE: "clean"}
    layout = patched.layout
    write(layout.root, "patches/forgotten.patch", "x")
    layout.series.write_text(f"{REGISTER}\ngone.patch\n{ROTATE}\n")
    path = layout.patches / ROTATE
    path.write_bytes(path.read_bytes().replace(b"Drop-when: never\n", b"").replace(b"Reason: feature", b"Reason: fun"))
    write(layout.tree, "src/core.cpp", "an edit of somebody's\n")
    checked = check_series(Session(layout, QUIET))
    found = {(problem.name, problem.message.split()[0]) for problem in checked.problems}
    assert {("forgotten.patch", "series"), (ROTATE, "its"), (ROTATE, "Reason")} <= found
    assert states(checked) == {REGISTER: "clean", "gone.patch": "conflict", ROTATE: "clean"}
    assert not checked.ok
    assert (layout.tree / "src/core.cpp").read_text() == "an edit of somebody's\n"


def test_check_tells_merged_from_conflict_and_still_tries_the_rest(patched: Project) -> None:
    upgrade(patched, "src/core.cpp", "line 9\n", "line nine\n")  # context of the first patch
    assert states(check_series(patched.session)) == {REGISTER: "merged", ROTATE: "clean"}
    upgrade(patched, "src/core.cpp", "line 10\n", "line ten\n")
    checked = check_series(patched.session)
    assert states(checked) == {REGISTER: "conflict", ROTATE: "clean"}
    error = checked.error()
    assert isinstance(error, PatchConflict)
    assert REGISTER in error.message


def test_check_sees_that_upstream_took_a_patch(patched: Project) -> None:
    upgrade(patched, "src/core.cpp", "line 10\n", "line 10\nturbo 10\n")
    assert states(check_series(patched.session)) == {REGISTER: "upstream", ROTATE: "clean"}


def conflict(project: Project) -> PatchConflict:
    with pytest.raises(PatchConflict) as caught:
        ensure_applied(project.session)
    return caught.value


@pytest.mark.parametrize(
    ("name", "old", "new", "state"),
    [
        ("src/core.cpp", "line 10\n", "line ten\n", "context moved"),
        ("src/core.cpp", "", "", "file gone"),
        ("src/core.cpp", "", "core/core.cpp", "file moved"),
    ],
)
def test_the_conflict_report_classifies_files_and_hunks(
    patched: Project, name: str, old: str, new: str, state: str
) -> None:
    (patched.upstream.folder / "core").mkdir()
    if new == "core/core.cpp":  # so much else changed that git's own rename detection does not follow
        path = patched.upstream.folder / name
        text = "".join(f"other {number}\n" for number in range(400))
        path.write_text(text + path.read_text())
    upgrade(patched, name, old, new)
    error = conflict(patched)
    report = error.report
    assert report is not None
    assert (report["patch"], report["position"], report["of"], report["reason"]) == (REGISTER, 1, 2, "feature")
    assert [(file["path"], file["state"]) for file in report["files"]] == [(name, state)]  # type: ignore[attr-defined]
    assert report["later"] == [{"patch": ROTATE, "files": [name]}]
    assert state in error.message
    assert error.as_json()["report"] == report
    assert not patched.tree.status()


def commands(error: PatchConflict, title: str) -> list[str]:
    assert error.report is not None
    found = error.report["commands"]
    assert isinstance(found, dict)
    return list(found[title])


def test_a_conflict_is_repaired_with_the_commands_of_its_report(patched: Project) -> None:
    upgrade(patched, "src/core.cpp", "line 10\n", "line ten\n")
    error = conflict(patched)
    assert error.report is not None
    place = Path(str(error.report["work_tree"]))
    path = place / "src/core.cpp"
    assert "<<<<<<<" in path.read_text()
    with pytest.raises(DirtyTree, match="not committed"):
        export(patched.session, source=place)
    with pytest.raises(DirtyTree, match=r"src/core\.cpp:10"):
        resume(patched.session)
    assert conflict(patched).report == error.report  # trying again keeps what somebody began
    path.write_text(LINES.replace("line 10\n", "line ten\nturbo 10\n"))
    assert commands(error, "continue") == [f"cd '{place}'", "turbotool patch continue"]
    assert resume(patched.session).patches == (REGISTER, ROTATE)
    assert not place.exists()
    assert ensure_applied(patched.session).cached
    text = (patched.layout.tree / "src/core.cpp").read_text()
    assert "line ten\nturbo 10\n" in text
    assert "turbo 30" in text


def test_a_conflicting_patch_is_skipped_or_the_repair_aborted_with_the_commands(patched: Project) -> None:
    upgrade(patched, "src/core.cpp", "line 10\n", "line ten\n")
    error = conflict(patched)
    assert error.report is not None
    place = Path(str(error.report["work_tree"]))
    before = patched.snapshot()
    assert abort(patched.session) == place
    assert not place.exists()
    assert patched.snapshot() == before
    with pytest.raises(SeriesError, match="no patch is waiting"):
        resume(patched.session)
    conflict(patched)
    with pytest.raises(DirtyTree):
        resume(patched.session)
    assert resume(patched.session, skip=True).patches == (ROTATE,)
    assert ensure_applied(patched.session).cached


def test_a_repair_that_was_killed_after_its_commit_goes_on_from_there(patched: Project) -> None:
    upgrade(patched, "src/core.cpp", "line 10\n", "line ten\n")
    place = Path(str((conflict(patched).report or {})["work_tree"]))
    (place / "src/core.cpp").write_text(LINES.replace("line 10\n", "line ten\nturbo 10\n"))
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr("turbotool.series.resume.apply_rest", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            resume(patched.session)
    (place / "src/core.cpp").write_text("what a killed git may have left")
    assert resume(patched.session).patches == (REGISTER, ROTATE)
    assert "line ten\nturbo 10\n" in (patched.layout.tree / "src/core.cpp").read_text()


def test_a_patch_that_is_repaired_into_nothing_has_to_be_skipped(patched: Project) -> None:
    upgrade(patched, "src/core.cpp", "line 10\n", "line ten\n")
    place = Path(str((conflict(patched).report or {})["work_tree"]))
    (place / "src/core.cpp").write_text(LINES.replace("line 10\n", "line ten\n"))
    with pytest.raises(SeriesError, match="would be empty") as caught:
        resume(patched.session)
    assert caught.value.hint == "turbotool patch skip"


def test_lines_that_stand_elsewhere_too_are_merged_where_the_patch_means_them(patched: Project) -> None:
    """`git am` looks for the lines nearest to the old place; upstream has put a copy of them there."""
    block = "".join(f"line {number}\n" for number in range(7, 14))
    upgrade(patched, "src/core.cpp", "line 1\n", "".join(f"new {n}\n" for n in range(7)) + "line 1\n")
    upgrade(patched, "src/core.cpp", "new 6\n", "new 6\n" + block)
    ensure_applied(patched.session, relock=True)
    text = (patched.layout.tree / "src/core.cpp").read_text()
    assert text.index("turbo 10") > text.index("line 1\n")
    assert text.count("turbo 10") == 1


def test_an_interrupted_move_is_finished_by_the_next_run(patched: Project) -> None:
    head, base = patched.tree.text("rev-parse", "HEAD"), patched.tree.text("rev-parse", BASE_REF)
    patched.tree.run("checkout", "--quiet", "--detach", base)
    begin(patched.layout, Journal(move=Move(base, head)))
    write(patched.layout.state, "lock.json", "{}")  # its writer never came to remove it
    (patched.layout.tree / "src/core.cpp").write_text("half")  # what a kill may leave
    (patched.layout.tree / "src/turbo").mkdir()
    (patched.layout.tree / ".git/index.lock").touch()
    (patched.layout.tree / ".git/HEAD.lock").touch()
    untouched = (patched.layout.tree / "run.sh").stat().st_mtime_ns
    assert ensure_applied(patched.session).head == head
    assert patched.tree.status() == []
    assert unfinished(patched.layout) is None
    assert (patched.layout.tree / "run.sh").stat().st_mtime_ns == untouched


def test_the_lock_file_of_somebodys_own_git_is_left_alone(patched: Project) -> None:
    (patched.layout.tree / ".git/index.lock").touch()
    assert ensure_applied(patched.session).cached
    assert (patched.layout.tree / ".git/index.lock").exists()


def test_an_interrupted_export_is_finished_by_the_next_run(patched: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    patched.edit("src/cache.cpp", "cache 3\n", "cache three\n")
    patched.commit("One more")

    class KilledError(BaseException):
        pass

    def killed(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patching:
        patching.setattr(journal, "install", killed)
        patching.setattr("shutil.rmtree", lambda *_, **__: None)  # a kill cleans nothing up
        with pytest.raises(KilledError):
            export(patched.session)
    assert len(series.names(patched.layout)) == 2
    assert ensure_applied(patched.session).patches == 3
    assert not export(patched.session).changed


def test_unmerged_files_are_those_of_the_tree_whatever_the_user_has_set(
    patched: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, base = patched.tree, patched.tree.text("rev-parse", BASE_REF)
    for key, value in (("index.version", "4"), ("core.splitIndex", "true")):
        tree.run("config", key, value)
    for name in ("GIT_DIR", "GIT_COMMON_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"):
        monkeypatch.setenv(name, str(tmp_path / "nowhere"))
    place = tmp_path / "another work tree"
    tree.run("worktree", "add", "--quiet", "--detach", place, base)
    there = tree.at(place)
    assert there.unmerged() == set()
    text = (place / "src/core.cpp").read_text()
    (place / "src/core.cpp").write_text(text.replace("line 10\n", "mine\n"))
    there.run("commit", "--quiet", "--all", "--message", "mine")
    there.run("merge", "--quiet", tree.text("rev-parse", "HEAD"), check=False)
    assert there.unmerged() == {"src/core.cpp"}
    assert tree.unmerged() == set()


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("Register the turbo cache types", "register-the-turbo-cache-types"),
        ("[PATCH 3/9] Fix K-shift (turbo)", "fix-k-shift-turbo"),
        ("Größe ändern", "groe-andern"),
        ("../../etc", "etc"),
        ("日本", "patch"),
        ("x" * 99, "x" * 60),
    ],
)
def test_names_come_from_subjects(subject: str, name: str) -> None:
    assert slug(subject) == name


LINE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\n"), max_size=12)
EDIT = st.tuples(st.sampled_from(["src/core.cpp", "src/cache.cpp", "src/dos.h", "run.sh", "own/a.c", "own/b é.c"]),
                 st.integers(0, 39), st.lists(LINE, max_size=3))  # fmt: skip


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    commits=st.lists(
        st.tuples(st.text("abc [é]:", min_size=1, max_size=20), st.lists(EDIT, min_size=1, max_size=3)), max_size=3
    )
)
def test_export_then_apply_gives_the_same_tree_and_export_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, commits: list[tuple[str, list[tuple[str, int, list[str]]]]]
) -> None:
    project = make_project(tmp_path_factory.mktemp("random"))
    ensure_applied(project.session)
    for number, (subject, edits) in enumerate(commits):
        for name, at, lines in edits:
            path = project.layout.tree / name
            old = path.read_bytes().split(b"\n") if path.exists() else []
            old[at : at + 2] = [line.encode() for line in lines]
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"\n".join(old))
        project.commit(f"c{number} {subject.strip()}")
    wanted = project.tree.tree_of("HEAD")
    export(project.session)
    before = project.snapshot()
    shutil.rmtree(project.layout.tree)
    assert ensure_applied(project.session).tree == wanted
    assert not export(project.session).changed
    assert project.snapshot() == before


def test_trailers_are_read_from_the_last_paragraph(patched: Project) -> None:
    patch = read_patch(patched.layout.patches / ROTATE)
    assert patch.trailers == {"Reason": "feature", "Upstream": "none", "Drop-when": "never"}
    assert TRAILERS.strip() == patch.body
    assert [file.path for file in patch.files] == ["src/core.cpp", "src/dos.h"]
    assert (patch.added, patch.removed) == (2, 2)
