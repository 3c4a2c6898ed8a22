"""What a run leaves for the next one, damaged in every way: an error of one line and a way out, never a traceback."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from command_line import Done, typed
from fake_tools import fake_site
from tiny_series import LINES, Project, commit, write

from turbotool.build.record import read_record
from turbotool.errors import ArchiveError, DocumentError, LockError, SourceError, TurbotoolError
from turbotool.pin import candidates
from turbotool.pin.reference import parse_reference, release
from turbotool.pin.rehearse import rehearse
from turbotool.programs.choose import named_binaries
from turbotool.release.pack import Member, with_sums, write_archive
from turbotool.release.record import portable_record
from turbotool.release.sharedlibs import Needs
from turbotool.release.unpacked import unpacked
from turbotool.series import repair
from turbotool.system.documents import encode
from turbotool.system.git import BASE_REF
from turbotool.system.locks import describe_holder, work_lock
from turbotool.upstream import pypi, sources
from turbotool.upstream.journal import Journal, Move, begin, journal_file
from turbotool.upstream.lock import read_lock
from turbotool.upstream.packages import DEFAULT

CLASHES = LINES.replace("line 10\n", "line ten\n")


@pytest.fixture
def here(patched: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("TURBOTOOL_ROOT", str(patched.layout.root))
    monkeypatch.setenv("TURBOTOOL_CACHE", str(patched.layout.cache))
    return patched


def tagged(project: Project, tag: str, core: str) -> str:
    """Another release of the tiny upstream with this src/core.cpp, as ADDRESS@REF."""
    write(project.upstream.folder, "src/core.cpp", core)
    commit(project.upstream, tag)
    project.upstream.run("tag", tag)
    return f"{project.upstream.folder}@{tag}"


def stopped_bump(project: Project, capsys: pytest.CaptureFixture[str]) -> Path:
    """The record of a bump whose first patch waits to be repaired."""
    done = typed(["vendor", "bump", tagged(project, "v2", CLASHES), "--no-verify", "--json"], capsys)
    assert done.code == 16, done.stderr
    return project.layout.state / "bump" / "attempt.json"


def stopped_apply(project: Project, capsys: pytest.CaptureFixture[str]) -> Path:
    """The record of a repair that began without a bump."""
    tagged(project, "v2", CLASHES)
    words = ["vendor", "--source", "git", "--url", str(project.upstream.folder), "--ref", "v2", "--relock", "--json"]
    assert typed(words, capsys).code == 0
    assert typed(["patch", "apply", "--json"], capsys).code == 16
    (record,) = project.layout.state.glob("repair-*.json")
    return record


def begun_move(project: Project) -> Path:
    """The journal of a move that a killed run had begun and nearly ended."""
    step = Move(project.tree.text("rev-parse", BASE_REF), project.tree.text("rev-parse", "HEAD"))
    begin(project.layout, Journal(move=step))
    return journal_file(project.layout)


def changed(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def refused(done: Done, code: int) -> dict[str, str]:
    """The error of a command that ended with this code."""
    assert done.code == code, done.stderr
    error: dict[str, str] = done.document["error"]
    assert len(error["message"].splitlines()) == 1
    return error


# The journal


@pytest.mark.parametrize(
    "text", ["", '{"kind": "move", "from": "a", "to": "b"}', '{"schema": "turbotool.journal", "version": 1}']
)
def test_a_journal_that_cannot_be_read_stops_every_run_and_says_what_to_do(
    here: Project, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    file = begun_move(here)
    file.write_text(text)
    for words in (["vendor"], ["patch", "apply"], ["patch", "export"], ["patch", "abort"]):
        error = refused(typed([*words, "--json"], capsys), 34)
        assert str(file) in error["message"]
        assert f"look at {here.layout.tree}" in error["hint"]
        assert f"safe to remove {file}" in error["hint"]
    assert file.read_text() == text
    file.unlink()
    assert typed(["vendor", "--json"], capsys).code == 0


def test_a_journal_of_a_newer_version_is_refused(here: Project, capsys: pytest.CaptureFixture[str]) -> None:
    changed(begun_move(here), version=2)
    error = refused(typed(["vendor", "--json"], capsys), 34)
    assert "is of version 2 of turbotool.journal, newer than 1" in error["message"]
    assert error["hint"] == "use the newer turbotool"


def test_a_journal_that_names_two_steps_is_refused(here: Project, capsys: pytest.CaptureFixture[str]) -> None:
    changed(begun_move(here), export={"prepared": "somewhere", "head": "c0ffee"})
    assert "names 2 steps instead of one" in refused(typed(["vendor", "--json"], capsys), 34)["message"]


# A bump and a repair


@pytest.mark.parametrize("damage", ["{", '{"ref": "v2"}', '{"schema": "turbotool.attempt", "version": 2}', None])
def test_a_bump_whose_record_is_damaged_can_be_aborted(
    here: Project, capsys: pytest.CaptureFixture[str], damage: str | None
) -> None:
    before = here.snapshot()
    record = stopped_bump(here, capsys)
    record.unlink()
    if damage is not None:
        record.write_text(damage)
    bump = ["vendor", "bump", f"{here.upstream.folder}@v2", "--no-verify"]
    for words in (["patch", "continue"], ["patch", "skip"], bump):
        error = refused(typed([*words, "--json"], capsys), 34)
        assert str(record) in error["message"]
        assert "newer turbotool" in error["hint"] or "turbotool patch abort" in error["hint"]
    assert typed(["patch", "abort", "--json"], capsys).document["removed"] == str(record.parent)
    assert (here.snapshot(), record.parent.exists()) == (before, False)
    again = typed([*bump, "--json"], capsys)
    assert (again.code, record.is_file()) == (16, True)


def test_a_damaged_repair_inside_a_bump_can_be_aborted_and_does_not_hide_the_error(
    here: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    attempt = stopped_bump(here, capsys)
    (record,) = attempt.parent.rglob("repair-*.json")
    changed(record, position="1")
    error = refused(typed(["patch", "continue", "--json"], capsys), 34)
    assert "got `str` - at `$.position`" in error["message"]
    assert typed(["patch", "abort", "--json"], capsys).code == 0
    assert not attempt.parent.exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"place": "../../somebody's"}, "it is about"),
        ({"position": 0}, "is damaged: patch 0 of 2"),
        ({"position": 3}, "is damaged: patch 3 of 2"),
        ({"waiting": None}, "`$.waiting`"),
        ({"schema": None}, "its schema is None"),
        ({"version": 2}, "newer than 1"),
    ],
)
def test_a_repair_whose_record_is_damaged_can_be_aborted(
    here: Project, capsys: pytest.CaptureFixture[str], changes: dict[str, object], said: str
) -> None:
    record = stopped_apply(here, capsys)
    changed(record, **changes)
    place = record.with_suffix("")
    for words in (["patch", "continue"], ["patch", "skip"]):
        assert said in refused(typed([*words, "--json"], capsys), 34)["message"]
    assert place.is_dir()
    assert typed(["patch", "abort", "--json"], capsys).document["removed"] == str(place)
    assert not place.exists()
    assert not record.exists()


def test_the_record_of_a_repair_that_is_gone_is_nothing(here: Project) -> None:
    write(here.layout.state, "repair-0123456789ab.json", "{")
    assert repair.find(here.layout) is None


# Upstreams in the cache


@pytest.mark.parametrize("damage", ["{", '{"tree": "x", "source": "git"}', "newer", "another"])
def test_a_damaged_note_about_an_upstream_is_made_anew(here: Project, damage: str) -> None:
    ref = tagged(here, "v2", LINES.replace("line 8\n", "line eight\n"))
    reference = parse_reference(here.layout, ref)
    first = rehearse(here.session, reference)
    (note,) = candidates.store(here.session).layout.work.glob("git-*.json")
    if damage == "newer":
        changed(note, version=2)
    elif damage == "another":
        changed(note, upstream={**json.loads(note.read_text())["upstream"], "commit": "0" * 40})
    else:
        note.write_text(damage)
    again = rehearse(here.session, reference)
    assert (again.onto.cached, again.onto.upstream) == (False, first.onto.upstream)
    assert rehearse(here.session, reference).onto.cached


@pytest.mark.parametrize(
    "changes", [{}, {"sha256": ""}, {"sha256": 3}, {"version": "0.0.1"}, {"archive": "other.tar.gz"}, {"source": "git"}]
)
def test_what_an_index_said_about_a_release_is_asked_again_where_the_note_is_damaged(
    here: Project, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    def asking(whom: str) -> Callable[..., str]:
        def ask(*_: object) -> str:
            raise SourceError(whom)

        return ask

    there = candidates.store(here.session)
    wanted = release(read_lock(here.layout).upstream, DEFAULT, "0.3.34")
    note = there.layout.work / f"release-{wanted.package}-0.3.34.json"
    known = candidates.Found(replace(wanted, sha256="ab" * 32, size=7, commit="cd" * 20))
    write(note.parent, note.name, encode(known).decode())
    changed(note, upstream={**json.loads(note.read_text())["upstream"], **changes})
    monkeypatch.setattr(pypi, "learn_sha256", asking("the index"))
    monkeypatch.setattr(sources, "fetch_pypi", asking("for what the note tells"))
    with pytest.raises(SourceError, match="the index" if changes else "for what the note tells"):
        candidates.pristine(there, wanted, None)


# Any file, any damage


@dataclass(frozen=True)
class Reader:
    """A file, and what reads it: returns the error that it ends with, or None."""

    file: Path
    read: Callable[[], TurbotoolError | None]
    errors: tuple[type[TurbotoolError], ...] = ()
    always: bool = False  # whatever is damaged is an error


def error_of(work: Callable[[], object]) -> TurbotoolError | None:
    try:
        work()
    except TurbotoolError as error:
        return error
    return None


def commanded(capsys: pytest.CaptureFixture[str], *words: str) -> TurbotoolError | None:
    """Run a command: the error that it tells in its document. Code 1 is what nobody foresaw."""
    done = typed([*words, "--json"], capsys)
    assert done.code != 1, done.stderr
    assert "Traceback" not in done.stderr
    if done.code == 0:
        return None
    told = done.document["error"]
    known = {cls.__name__: cls for cls in (DocumentError, LockError)}
    return known.get(told["class"], TurbotoolError)(told["message"], hint=told["hint"])


def reader_of_lock(here: Project, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Reader:
    return Reader(here.layout.lock_file, lambda: commanded(capsys, "vendor"), (LockError,))


def reader_of_journal(here: Project, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Reader:
    return Reader(begun_move(here), lambda: commanded(capsys, "vendor"), (DocumentError,))


def reader_of_attempt(here: Project, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Reader:
    return Reader(stopped_bump(here, capsys), lambda: commanded(capsys, "patch", "continue"), (DocumentError,), True)


def reader_of_repair(here: Project, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Reader:
    return Reader(stopped_apply(here, capsys), lambda: commanded(capsys, "patch", "continue"), (DocumentError,), True)


def reader_of_upstream(here: Project, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Reader:
    ref = tagged(here, "v2", LINES.replace("line 8\n", "line eight\n"))
    assert typed(["patch", "rehearse", "--onto", ref, "--json"], capsys).code == 0
    (note,) = candidates.store(here.session).layout.work.glob("git-*.json")
    return Reader(note, lambda: commanded(capsys, "patch", "rehearse", "--onto", ref))


def reader_of_holder(here: Project, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Reader:
    lock = here.layout.state / "lock"
    with work_lock(here.session, "look at its own record"):
        said = describe_holder(lock)
        assert "holds it since" in said
        assert said.endswith("to look at its own record")
        data = lock.with_suffix(".json").read_text()
    write(tmp_path, "lock.json", data)
    return Reader(tmp_path / "lock.json", lambda: error_of(lambda: describe_holder(tmp_path / "lock")))


def built(folder: Path, name: str, *, again: bool = False) -> Reader:
    """A file of a build folder; `again` makes the next build run although nothing changed."""
    site = fake_site(folder / "site")
    site.build()

    def build() -> None:
        if again:
            (site.folder / "build.json").unlink()
        reasons = site.build().reasons
        assert all(len(reason.splitlines()) == 1 for reason in reasons)
        assert named_binaries(site.folder / "bin", "cpu").backend == "cpu"
        assert site.build().cached

    return Reader(site.folder / name, lambda: error_of(build))


def reader_of_build(here: Project, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Reader:
    return built(tmp_path, "build.json")


def reader_of_cmake_state(here: Project, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Reader:
    return built(tmp_path, "configured.json", again=True)


def reader_of_stamps(here: Project, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Reader:
    return built(tmp_path, "stamps.json", again=True)


def reader_of_package(here: Project, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Reader:
    site = fake_site(tmp_path / "site")
    site.build()
    record = read_record(site.folder)
    assert record is not None
    write(tmp_path, "build.json", encode(portable_record(record, Needs(("libc.so.6",), ()))).decode())

    def look() -> None:
        files = {"build.json": Member((tmp_path / "build.json").read_bytes())}
        write_archive(tmp_path / "p.tar.gz", "p", with_sums(files), 315532800)
        with unpacked(tmp_path / "p.tar.gz"):
            pass

    return Reader(tmp_path / "build.json", lambda: error_of(look), (ArchiveError,))


READERS = {
    "lock": reader_of_lock,
    "journal": reader_of_journal,
    "attempt": reader_of_attempt,
    "repair": reader_of_repair,
    "upstream": reader_of_upstream,
    "lock-holder": reader_of_holder,
    "build-record": reader_of_build,
    "cmake-state": reader_of_cmake_state,
    "stamps": reader_of_stamps,
    "package-record": reader_of_package,
}


def tables(value: Any) -> Iterator[dict[str, Any]]:
    """Every object with fields in a document, the document first."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        yield from tables(item)


def damage(fields: dict[str, Any], dice: random.Random) -> str:
    """Change one thing; returns what."""
    if dice.random() < 0.15:
        fields["version"] = dice.choice([fields["version"] + 1, 99, -1, "1", None, 1.0, True])
        return f"version {fields['version']}"
    table = dice.choice([table for table in tables(fields) if table])
    name = dice.choice(list(table))
    what = dice.choice(["drop", "rename", "retype"])
    value = table.pop(name)
    if what == "rename":
        table[f"{name}_"] = value
    elif what == "retype":
        kinds = [7, -(10**30), "text", [], {}, True, 1.5, [None], {"a": {"b": []}}]
        table[name] = dice.choice([kind for kind in kinds if type(kind) is not type(value)])
    return f"{what} {name}"


@pytest.mark.parametrize("mutations", [8, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", READERS)
def test_any_damage_is_an_error_of_one_line_or_what_is_documented(
    name: str, mutations: int, here: Project, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    reader = READERS[name](here, capsys, tmp_path)
    sound, dice = reader.file.read_bytes(), random.Random(name)
    is_toml = reader.file.suffix == ".toml"
    errors = 0
    for _ in range(mutations):
        fields: dict[str, Any] = tomlkit.parse(sound.decode()).unwrap() if is_toml else json.loads(sound)
        what = damage(fields, dice)
        try:
            text = tomlkit.dumps(fields) if is_toml else json.dumps(fields)
        except (TypeError, ValueError):  # TOML has no null
            continue
        reader.file.write_text(text)
        error = reader.read()
        errors += error is not None
        if error is not None or reader.always:
            assert isinstance(error, reader.errors), (what, error)
            assert len(error.message.splitlines()) == 1, what
        reader.file.write_bytes(sound)
    assert bool(errors) is bool(reader.errors)
