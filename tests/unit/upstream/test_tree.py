"""Vendoring: the locked tree or an error, somebody's edits kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_series import FILES, QUIET, Project, commit, write

from turbotool.errors import ArchiveError, DirtyTree, HashMismatch, LockError, NoSpace, SourceError
from turbotool.system import git
from turbotool.system.output import Output
from turbotool.system.session import Session
from turbotool.upstream.lock import Upstream, read_lock, write_upstream
from turbotool.upstream.tree import Vendored, ensure_vendored


def test_every_upstream_file_is_in_the_base_commit_ignored_ones_too(project: Project) -> None:
    done = ensure_vendored(project.session)
    assert done.tree == read_lock(project.layout).upstream.tree == project.tree.tree_of(git.BASE_REF)
    assert set(project.tree.files("HEAD")) == set(FILES)
    assert (project.layout.tree / "src/dos.h").read_bytes() == FILES["src/dos.h"].encode()
    assert project.tree.status() == []


def test_the_commit_id_does_not_depend_on_source_time_or_place(project: Project, tmp_path: Path) -> None:
    first = ensure_vendored(project.session)
    shutil.rmtree(project.layout.tree)
    second = ensure_vendored(project.session, upstream=Upstream("dir", ""), path=project.upstream.folder)
    assert first.base == second.base


def test_a_second_run_changes_nothing(project: Project) -> None:
    ensure_vendored(project.session)
    before = (project.layout.tree / "run.sh").stat().st_mtime_ns
    shutil.rmtree(project.upstream.folder)  # nothing is fetched either
    assert ensure_vendored(project.session).cached
    assert (project.layout.tree / "run.sh").stat().st_mtime_ns == before


def archive_of(project: Project, path: Path) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        tar.add(project.upstream.folder, arcname="tiny-1.0")
    return path


def test_archive_dir_and_git_give_the_same_tree(project: Project, tmp_path: Path) -> None:
    archive = archive_of(project, tmp_path / "t.tar.gz")
    bare = tmp_path / "bare.git"
    project.upstream.run("clone", "--quiet", "--bare", project.upstream.folder, bare)
    pristine = tmp_path / "pristine"
    shutil.copytree(project.upstream.folder, pristine, ignore=shutil.ignore_patterns(".git"))
    trials: list[tuple[Upstream, Path | None]] = [
        (Upstream("archive", ""), archive),
        (Upstream("archive", "", subdir="tiny-1.0"), archive),
        (Upstream("dir", ""), pristine),
        (Upstream("git", "", url=bare.as_uri(), ref="v1"), None),
        (Upstream("git", "", url=str(bare), ref="main"), None),
        (Upstream("git", "", url=str(bare), ref=project.upstream.text("rev-parse", "HEAD")), None),
    ]
    bases = {vendored(project, upstream, path).base for upstream, path in trials}
    assert len(bases) == 1


def vendored(project: Project, upstream: Upstream, path: Path | None) -> Vendored:
    shutil.rmtree(project.layout.tree, ignore_errors=True)
    return ensure_vendored(project.session, upstream=upstream, path=path)


def test_another_tree_is_refused_until_it_is_relocked(project: Project) -> None:
    was = ensure_vendored(project.session)
    write(project.upstream.folder, "new.txt", "new\n")
    head = commit(project.upstream, "next")
    other = Upstream("git", "", url=str(project.upstream.folder), ref="main")
    with pytest.raises(HashMismatch) as caught:
        ensure_vendored(project.session, upstream=other)
    assert was.tree in caught.value.message
    assert project.upstream.tree_of("main") in caught.value.message
    assert project.tree.tree_of("HEAD") == was.tree
    ensure_vendored(project.session, upstream=other, relock=True)
    now = read_lock(project.layout).upstream
    assert (now.commit, now.tree) == (head, project.upstream.tree_of("main"))
    assert "# comment" in project.layout.lock_file.read_text()
    assert ensure_vendored(project.session).cached


def test_an_archive_is_relocked_with_its_sha256_and_checked_against_it(project: Project, tmp_path: Path) -> None:
    archive = archive_of(project, tmp_path / "t.tar.gz")
    ensure_vendored(project.session, upstream=Upstream("archive", ""), path=archive, relock=True)
    locked = read_lock(project.layout).upstream
    assert locked.sha256 == hashlib.sha256(archive.read_bytes()).hexdigest()
    archive.write_bytes(archive.read_bytes() + b"x")
    shutil.rmtree(project.layout.tree)
    with pytest.raises(HashMismatch, match=locked.sha256):
        ensure_vendored(project.session, upstream=locked, path=archive)


@pytest.mark.parametrize("ref", ["v9", "0" * 40, "refs/heads/none", "--upload-pack=touch x"])
def test_an_unknown_ref_is_a_source_error(project: Project, ref: str) -> None:
    with pytest.raises(SourceError):
        ensure_vendored(project.session, upstream=Upstream("git", "", url=str(project.upstream.folder), ref=ref))
    assert not project.layout.tree.exists()


@pytest.mark.parametrize("url", ["http://localhost:1/x.git", "git://localhost:1/x.git", "ext::touch ran"])
def test_only_encrypted_transports_are_used(project: Project, url: str) -> None:
    with pytest.raises(SourceError, match="not allowed") as caught:
        ensure_vendored(project.session, upstream=Upstream("git", "", url=url, ref="v1"))
    assert "https://" in (caught.value.hint or "")


def test_no_configuration_turns_the_check_of_certificates_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project: Project
) -> None:
    (tmp_path / "config").write_text("[http]\n\tsslVerify = false\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    monkeypatch.setenv("GIT_SSL_NO_VERIFY", "1")
    assert project.upstream.run("config", "http.sslVerify", network=True).output.strip() == "true"
    assert "GIT_SSL_NO_VERIFY" not in git.environment(tmp_path, network=True)


def test_the_day_of_a_commit_is_locked_with_it(project: Project) -> None:
    upstream = Upstream("git", "", url=str(project.upstream.folder), ref="v1")
    ensure_vendored(project.session, upstream=upstream, relock=True)
    assert read_lock(project.layout).upstream.date == git.DATE[:10]


def test_missing_places_are_source_errors(project: Project, tmp_path: Path) -> None:
    for upstream in (
        Upstream("dir", ""),
        Upstream("archive", ""),
        Upstream("git", "", url=str(tmp_path / "no"), ref="x"),
    ):
        with pytest.raises(SourceError):
            ensure_vendored(project.session, upstream=upstream, path=tmp_path / "no")
    (tmp_path / "text.tar.gz").write_text("not an archive")
    with pytest.raises(ArchiveError):
        ensure_vendored(project.session, upstream=Upstream("archive", ""), path=tmp_path / "text.tar.gz")


def test_a_folder_with_a_link_out_of_it_is_refused(project: Project, tmp_path: Path) -> None:
    source = tmp_path / "source"
    write(source, "a.txt", "a")
    (source / "out").symlink_to("/etc/passwd")
    with pytest.raises(SourceError, match="link out of"):
        ensure_vendored(project.session, upstream=Upstream("dir", ""), path=source)


@pytest.mark.parametrize("kind", ["edited", "untracked", "staged", "deleted", "committed"])
def test_edits_are_listed_and_kept_without_force(project: Project, kind: str) -> None:
    ensure_vendored(project.session)
    tree = project.layout.tree
    if kind == "deleted":
        (tree / "run.sh").unlink()
    else:
        write(tree, "mine.txt" if kind == "untracked" else "run.sh", "mine\n")
    if kind == "staged":
        project.tree.run("add", "--all")
    if kind == "committed":
        commit(project.tree, "My own work")
    with pytest.raises(DirtyTree, match="My own work" if kind == "committed" else "mine.txt|run.sh"):
        ensure_vendored(project.session)
    assert (tree / "run.sh").exists() == (kind != "deleted")
    ensure_vendored(project.session, force=True)
    assert project.tree.status() == []
    assert (tree / "run.sh").read_text() == FILES["run.sh"]
    assert not (tree / "mine.txt").exists()


def test_ignored_files_such_as_builds_are_no_edits(project: Project) -> None:
    ensure_vendored(project.session)
    write(project.layout.tree, "build/out.o", "object")
    assert ensure_vendored(project.session).cached


def test_a_foreign_folder_in_the_place_is_kept_without_force(project: Project) -> None:
    write(project.layout.tree, "thesis.txt", "years of work")
    with pytest.raises(DirtyTree, match=r"thesis\.txt"):
        ensure_vendored(project.session)
    assert (project.layout.tree / "thesis.txt").read_text() == "years of work"


def test_hostile_configuration_hooks_and_variables_change_nothing(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ensure_vendored(project.session).base
    shutil.rmtree(project.layout.tree)
    home, hooks = tmp_path / "home", tmp_path / "template" / "hooks"
    for hook in ("pre-commit", "post-checkout", "reference-transaction", "applypatch-msg"):
        write(hooks, hook, f"#!/bin/sh\ntouch {tmp_path}/hooked\nexit 1\n").chmod(0o755)
    write(tmp_path, "attributes", "* text eol=crlf\n")
    write(
        home,
        ".gitconfig",
        f"[core]\nautocrlf=true\nhooksPath={hooks}\nattributesFile={tmp_path}/attributes\nfileMode=false\n"
        f"[init]\ntemplateDir={tmp_path}/template\ndefaultBranch=x\n[commit]\ngpgSign=true\n[apply]\nwhitespace=fix\n"
        "[user]\nname=Someone\nemail=some@one\n[diff]\nnoprefix=true\nmnemonicPrefix=true\n[i18n]\ncommitEncoding=latin1\n",
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home / ".gitconfig"))
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(tmp_path / "template"))
    monkeypatch.setenv("GIT_DIR", str(project.upstream.folder / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Somebody Else")
    monkeypatch.setenv("GIT_DEFAULT_HASH", "sha256")
    assert ensure_vendored(project.session).base == expected
    assert not (tmp_path / "hooked").exists()
    assert not (tmp_path / "index").exists()


def test_line_ends_survive_a_gitattributes_in_the_tree(project: Project) -> None:
    write(project.upstream.folder, ".gitattributes", "* text=auto eol=lf\n")
    commit(project.upstream, "attributes")
    other = Upstream("dir", "")
    ensure_vendored(project.session, upstream=other, path=project.upstream.folder, relock=True)
    assert (project.layout.tree / "src/dos.h").read_bytes() == FILES["src/dos.h"].encode()
    assert project.tree.text("hash-object", "--no-filters", "src/dos.h") == project.tree.text(
        "rev-parse", "HEAD:src/dos.h"
    )


SERIES = "[series]\ntree = 'x'\noverlay = 'y'\npatches = []\n"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("", "missing required field `upstream`"),
        ("upstream = 3\n", r"got `int` - at `\$\.upstream`"),
        ("[upstream", "cannot be read"),
        ("a = " + "[" * 5000, "cannot be read"),
        ("[upstream]\nsource = 3\ntree = 'x'\n", r"got `int` - at `\$\.upstream\.source`"),
        (f"[upstream]\nsource = 'ftp'\ntree = 'x'\n{SERIES}", r"\[upstream\] source is 'ftp'"),
        (f"[upstream]\nsource = 'git'\ntree = 'x'\ndate = 'today'\n{SERIES}", r"\[upstream\] date is 'today'"),
        (f"[upstream]\nsource = 'git'\ntree = 'x'\ndate = 2026-10-01\n{SERIES}", r"at `\$\.upstream\.date`"),
        (f"[upstream]\nsource = 'git'\n{SERIES}", r"missing required field `tree` - at `\$\.upstream`"),
        (f"[upstream]\nsource = 'git'\ntree = 'x'\n{SERIES.replace('[]', '[1]')}", r"at `\$\.series\.patches\[0\]`"),
        (f"[upstream]\nsource = 'git'\ntree = 'x'\n{SERIES}[model]\nsize = 3\n", r"at `\$\.model`"),
        (f"version = 1\n{SERIES}", "names no schema"),
        (f"schema = 'turbotool.lock'\n{SERIES}", "its version is None"),
        (f"schema = 'turbotool.lock'\nversion = 2\n{SERIES}", "is of version 2 of turbotool.lock, newer than 1"),
    ],
)
def test_a_damaged_or_newer_lock_is_a_lock_error_of_one_line(project: Project, damage: str, said: str) -> None:
    project.layout.lock_file.write_text(damage)
    with pytest.raises(LockError, match=said) as caught:
        read_lock(project.layout)
    assert caught.value.message.startswith(str(project.layout.lock_file))
    assert len(caught.value.message.splitlines()) == 1


def test_a_lock_without_schema_and_version_is_read_and_the_next_write_adds_them(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = project.layout.lock_file.read_text()
    header = 'schema = "turbotool.lock"\nversion = 1\n\n'
    assert whole.startswith(f"# comment\n{header}")
    project.layout.lock_file.write_text(whole.replace(header, ""))
    ensure_vendored(Session(project.layout, Output()))
    assert "names no schema and version, as turbotool 0.1.0 wrote it" in capsys.readouterr().err
    write_upstream(project.layout, read_lock(project.layout).upstream)
    assert project.layout.lock_file.read_text() == whole
    ensure_vendored(Session(project.layout, Output()))
    assert "names no schema" not in capsys.readouterr().err


def test_a_lock_that_names_another_tree_is_a_mismatch(project: Project) -> None:
    write_upstream(project.layout, replace(read_lock(project.layout).upstream, tree="1" * 40))
    with pytest.raises(HashMismatch, match="1" * 40):
        ensure_vendored(project.session)
    assert not project.layout.tree.exists()


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting a tiny tmpfs needs root on Linux")
def test_a_full_disk_is_no_space_and_the_next_run_succeeds(project: Project, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(small)], check=False).returncode != 0:  # noqa: S607
        pytest.skip("this system does not let us mount a tmpfs")
    try:
        layout = replace(project.layout, work=small)
        write(project.upstream.folder, "big.bin", os.urandom(300_000).hex())
        big = Upstream("dir", "")
        with pytest.raises(NoSpace):
            ensure_vendored(Session(layout, QUIET), upstream=big, path=project.upstream.folder, relock=True)
        (project.upstream.folder / "big.bin").unlink()
        assert ensure_vendored(Session(layout, QUIET)).tree == read_lock(layout).upstream.tree
    finally:
        subprocess.run(["umount", str(small)], check=True)  # noqa: S607
