"""Rehearsals on another upstream: what each patch would meet, the pin only read, the second time from the cache."""

from __future__ import annotations

import io
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_series import FILES, LINES, REGISTER, ROTATE, TRAILERS, Project, commit, one_model, release, without_dos

from turbotool.errors import PatchConflict, SeriesError, SourceError
from turbotool.pin import candidates
from turbotool.pin.document import rehearsal_document
from turbotool.pin.reference import REPOSITORY, parse_reference
from turbotool.pin.rehearsal_page import page
from turbotool.pin.rehearse import Rehearsal, lines, rehearse
from turbotool.series.apply import ensure_applied
from turbotool.series.export import export
from turbotool.system.documents import as_builtins
from turbotool.upstream.lock import Upstream, write_upstream
from turbotool.upstream.packages import DEFAULT


def rehearsed(project: Project, ref: str) -> Rehearsal:
    return rehearse(project.session, parse_reference(project.layout, ref))


def states(done: Rehearsal) -> list[tuple[str, str]]:
    return [(trial.name, trial.state) for trial in done.trials]


def test_each_patch_is_clean_merged_upstream_or_in_conflict(patched: Project) -> None:
    ref = release(patched, "v2", {"src/cache.cpp": "other\n"})
    assert states(rehearsed(patched, ref)) == [(REGISTER, "clean"), (ROTATE, "clean")]
    ref = release(patched, "v3", {"src/core.cpp": LINES.replace("line 8\n", "line eight\n")})
    assert states(rehearsed(patched, ref)) == [(REGISTER, "merged"), (ROTATE, "clean")]
    ref = release(patched, "v4", {"src/core.cpp": LINES.replace("line 10\n", "line 10\nturbo 10\n")})
    done = rehearsed(patched, ref)
    assert states(done) == [(REGISTER, "upstream"), (ROTATE, "clean")]
    assert (done.droppable, done.error()) == ((REGISTER,), None)
    assert f"can be dropped, upstream has it: {REGISTER}" in lines(done)
    ref = release(patched, "v5", {"src/core.cpp": LINES.replace("line 30\n", "line thirty\n")})
    done = rehearsed(patched, ref)
    assert states(done) == [(REGISTER, "clean"), (ROTATE, "conflict")]
    assert isinstance(done.error(), PatchConflict)


def test_the_report_names_the_hunk_that_clashes_and_what_upstream_has_there(patched: Project) -> None:
    changed = LINES.replace("line 30\n", "line thirty\n").replace("line 2\n", "line 2\nnew\n")
    done = rehearsed(patched, release(patched, "v2", {"src/core.cpp": changed}))
    (report,) = done.conflicts()
    assert (report.patch, report.position, report.of) == (ROTATE, 2, 2)
    assert (report.reason, report.drop_when) == ("feature", "never")
    assert report.old_base == patched.upstream.text("rev-parse", "v1")
    assert report.new_base == patched.upstream.text("rev-parse", "v2")
    core, dos = done.trials[1].files
    assert [(hunk.line, hunk.conflict, hunk.differs) for hunk in core.hunks] == [
        (28, True, ("-line 30", "+line thirty"))
    ]
    assert "at line 32 now" in core.hunks[0].detail
    assert dos.applies
    text = "\n".join(lines(done))
    for said in ("src/core.cpp: in conflict", "-line 30", "+line thirty", "feature: Rotate what is stored"):
        assert said in text


def test_patches_after_a_conflict_are_tried_as_if_it_were_repaired(patched: Project) -> None:
    patched.edit("src/core.cpp", "turbo 10\n", "turbo ten\n")
    patched.commit("Follow the first patch")
    export(patched.session)
    changed = {"src/core.cpp": LINES.replace("line 10\n", "line ten\n")}
    assert [state for _, state in states(rehearsed(patched, release(patched, "v2", changed)))] == [
        "conflict",
        "clean",
        "clean",
    ]


def test_a_file_that_is_gone_and_one_that_moved_away_are_told_apart(patched: Project) -> None:
    (patched.upstream.folder / "src/core.cpp").unlink()
    done = rehearsed(patched, release(patched, "v2", {}))
    assert [file.state for file in done.trials[0].files] == ["file gone"]
    assert [state for _, state in states(done)] == ["conflict", "conflict"]
    done = rehearsed(patched, release(patched, "v3", {"core/core.cpp": LINES}))
    assert [state for _, state in states(done)] == ["merged", "merged"]  # git follows the whole file


def test_the_pin_is_only_read_and_the_second_time_nothing_is_fetched(patched: Project) -> None:
    ref = release(patched, "v2", {"src/core.cpp": LINES.replace("line 30\n", "line thirty\n")})
    patched.edit("src/cache.cpp", "cache 3\n", "an edit of somebody's\n")
    before, head = patched.snapshot(), patched.tree.text("rev-parse", "HEAD")
    first = rehearsed(patched, ref)
    assert not first.onto.cached
    commit_id = patched.upstream.text("rev-parse", "v2")
    full = ref.replace("@v2", f"@{commit_id}")
    shutil.rmtree(patched.upstream.folder / ".git/objects")
    second = rehearsed(patched, full)
    assert second.onto.cached
    assert states(second) == states(first)
    assert as_builtins(rehearsal_document([second]))["commit"] == commit_id
    assert (patched.snapshot(), patched.tree.text("rev-parse", "HEAD")) == (before, head)
    assert "an edit of somebody's" in (patched.layout.tree / "src/cache.cpp").read_text()
    assert not any((candidates.store(patched.session).layout.state / "scratch").iterdir())


def test_without_a_vendored_tree_the_pin_comes_from_its_source(patched: Project) -> None:
    ref = release(patched, "v2", {"src/core.cpp": LINES.replace("line 8\n", "line eight\n")})
    shutil.rmtree(patched.layout.tree)
    assert states(rehearsed(patched, ref)) == [(REGISTER, "merged"), (ROTATE, "clean")]
    assert not patched.layout.tree.exists()


def test_an_archive_is_rehearsed_and_known_by_its_hash(patched: Project, tmp_path: Path) -> None:
    path = tmp_path / "tiny-2.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in {**FILES, "src/core.cpp": LINES.replace("line 8\n", "line eight\n")}.items():
            info = tarfile.TarInfo(f"tiny-2/{name}")
            info.size, info.mode = len(text.encode()), 0o644
            tar.addfile(info, io.BytesIO(text.encode()))
    first = rehearsed(patched, str(path))
    assert states(first) == [(REGISTER, "merged"), (ROTATE, "clean")]
    assert len(first.onto.upstream.sha256) == 64
    moved = path.rename(tmp_path / "other.tar.gz")
    assert rehearsed(patched, str(moved)).onto.cached


def test_an_upstream_file_in_the_place_of_ours_is_a_series_error(patched: Project) -> None:
    ref = release(patched, "v2", {"src/turbo/codec.c": "int theirs;\n"})
    with pytest.raises(SeriesError, match=r"upstream has src/turbo/codec\.c"):
        rehearsed(patched, ref)


def test_references_are_versions_archives_refs_and_addresses(patched: Project, tmp_path: Path) -> None:
    layout = patched.layout
    version = parse_reference(layout, "0.3.34").upstream
    assert (version.source, version.archive) == ("pypi", "llama_cpp_python-0.3.34.tar.gz")
    assert version.subdir == "llama_cpp_python-0.3.34/vendor/llama.cpp"
    bare = parse_reference(layout, "b6000").upstream
    assert (bare.url, bare.ref) == (str(patched.upstream.folder), "b6000")  # the locked repository
    far = parse_reference(layout, f"{REPOSITORY}@feature/x").upstream
    assert (far.url, far.ref) == (REPOSITORY, "feature/x")
    scp = parse_reference(layout, "git@example.org:a/b.git@v1").upstream
    assert (scp.url, scp.ref) == ("git@example.org:a/b.git", "v1")
    for wrong in ("", "--upload-pack=x", "no such@ref", "a b", str(tmp_path / "missing.tar.gz")):
        with pytest.raises(SourceError, match=r"names no upstream|no archive"):
            parse_reference(layout, wrong)


def test_a_release_of_any_package_is_known_by_its_name_and_folder(patched: Project) -> None:
    found = parse_reference(patched.layout, "xllamacpp==2026.10.11549").upstream
    assert (found.archive, found.tag, found.commit) == ("xllamacpp-2026.10.11549.tar.gz", "b11549", "")
    assert found.subdir == "xllamacpp-2026.10.11549/thirdparty/llama.cpp"
    assert parse_reference(patched.layout, "xllamacpp==0.2.7").upstream.tag == ""  # its versions told nothing then
    for folder in ("deps/llama.cpp", "foo_bar-2.0/deps/llama.cpp/"):
        found = parse_reference(patched.layout, "Foo.Bar==2.0", subdir=folder).upstream
        assert (found.package, found.archive, found.tag) == ("foo-bar", "foo_bar-2.0.tar.gz", "")
        assert found.subdir == "foo_bar-2.0/deps/llama.cpp"
    with pytest.raises(SourceError, match="source distribution of foo-bar") as caught:
        parse_reference(patched.layout, "Foo.Bar==2.0")
    assert "--subdir" in (caught.value.hint or "")


@pytest.mark.parametrize("package", ["xllamacpp", "foo"])
def test_whatever_is_locked_a_bare_version_is_one_of_the_default_package(patched: Project, package: str) -> None:
    locked = Upstream(
        "pypi",
        "e" * 40,
        package=package,
        version="1.0",
        archive=f"{package}-1.0.tar.gz",
        sha256="a" * 64,
        size=7,
        subdir=f"{package}-1.0/x/y",
        tag="b7",
    )
    write_upstream(patched.layout, locked)
    assert parse_reference(patched.layout, "0.3.36").upstream.archive == "llama_cpp_python-0.3.36.tar.gz"
    assert parse_reference(patched.layout, "1.0").upstream.package == DEFAULT
    assert parse_reference(patched.layout, "b11549").upstream.url == REPOSITORY
    assert parse_reference(patched.layout, f"{package}==1.0").upstream == replace(locked, tree="")
    other = parse_reference(patched.layout, f"{package}==1.1").upstream
    inner = "x/y" if package == "foo" else "thirdparty/llama.cpp"
    assert (other.subdir, other.sha256, other.tag) == (f"{package}-1.1/{inner}", "", "")


def test_another_folder_of_the_same_archive_is_another_upstream(patched: Project, tmp_path: Path) -> None:
    path = tmp_path / "two.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for folder in ("a", "b"):
            for name, text in {**FILES, "which.txt": folder}.items():
                info = tarfile.TarInfo(f"{folder}/{name}")
                info.size = len(text.encode())
                tar.addfile(info, io.BytesIO(text.encode()))
    trees = [
        rehearse(patched.session, parse_reference(patched.layout, str(path), subdir=folder)).onto.upstream.tree
        for folder in ("a", "b", "a")
    ]
    assert (trees[0] == trees[1], trees[0] == trees[2]) == (False, True)


def test_an_upstream_without_a_commit_is_called_by_its_tag_and_none_is_invented(patched: Project) -> None:
    ref = release(patched, "v2", {"src/core.cpp": LINES.replace("line 30\n", "line thirty\n")})
    done = rehearsed(patched, ref)
    bare = replace(done.onto.upstream, source="pypi", package="xllamacpp", version="1.0", commit="")
    done = replace(done, onto=replace(done.onto, upstream=replace(bare, tag="b7")), old_base="b6")
    fields = as_builtins(rehearsal_document([done]))
    assert (fields["commit"], fields["tag"], fields["known_as"]) == ("", "b7", "b7")
    assert fields["conflicts"][0]["new_base"] == "b7"
    assert "xllamacpp 1.0 (b7): 1 clean, 1 conflict" in lines(done)
    text = page([done], "x", "2026-01-01")
    assert "written for llama.cpp `b6`" in text
    assert f"| {ref} | `b7` |" in text
    done = replace(done, onto=replace(done.onto, upstream=bare))  # nothing but the files is known
    assert as_builtins(rehearsal_document([done]))["known_as"] == bare.tree
    assert f"| {ref} | `{bare.tree[:9]}` |" in page([done], "x", "2026-01-01")


def test_an_unknown_ref_is_a_source_error(patched: Project) -> None:
    with pytest.raises(SourceError, match="v9"):
        rehearsed(patched, f"{patched.upstream.folder}@v9")


def test_a_patch_about_something_that_upstream_does_not_have_is_absent_and_no_conflict(project: Project) -> None:
    ensure_applied(project.session)
    name = one_model(project)
    done = rehearsed(project, without_dos(project, "v2"))
    assert states(done) == [(name, "absent"), ("come-last.patch", "clean")]
    assert (done.absent, done.error()) == ((name,), None)
    assert done.trials[0].missing == ("src/dos.h",)
    assert f"left out, upstream has no src/dos.h: {name}" in lines(done)
    fields = as_builtins(rehearsal_document([done]))
    assert (fields["ok"], fields["absent"], fields["patches"][0]["missing"]) == (True, [name], ["src/dos.h"])
    text = page([done], "x", "2026-01-01")
    assert "| `count-to-three` | absent |" in text
    assert f"## Left out on {done.ref}\n\n- `count-to-three`: upstream has no `src/dos.h`\n" in text


def test_a_patch_is_absent_even_where_its_lines_would_fit_and_later_ones_are_tried_without_it(project: Project) -> None:
    ensure_applied(project.session)
    project.edit("src/core.cpp", "line 10\n", "turbo 10\n")
    commit(project.tree, f"For dos alone{TRAILERS}Needs: src/dos.h\n")
    project.edit("src/core.cpp", "line 12\n", "turbo 12\n")
    project.commit("Beside it")
    project.edit("src/core.cpp", "turbo 10\n", "turbo ten\n")
    project.commit("On top of it")
    export(project.session)
    done = rehearsed(project, without_dos(project, "v2"))
    assert [state for _, state in states(done)] == ["absent", "merged", "conflict"]


def test_a_patch_whose_subject_is_there_is_tried_as_any_other(project: Project) -> None:
    ensure_applied(project.session)
    name = one_model(project)
    done = rehearsed(project, release(project, "v2", {"src/dos.h": "one\r\n2\r\n3\r\n"}))
    assert states(done) == [(name, "conflict"), ("come-last.patch", "clean")]


def test_the_page_has_a_column_for_each_upstream_and_every_hunk_that_clashes(patched: Project) -> None:
    good = release(patched, "v2", {"src/core.cpp": LINES.replace("line 8\n", "line eight\n")})
    bad = release(patched, "v3", {"src/core.cpp": LINES.replace("line 30\n", "line thirty\n")})
    (patched.upstream.folder / "src/core.cpp").unlink()
    gone = release(patched, "v4", {})
    text = page([rehearsed(patched, ref) for ref in (good, bad, gone)], "turbotool patch rehearse", "2026-01-01")
    name = REGISTER.removesuffix(".patch")
    assert f"| `{name}` | merged | clean | **conflict** |" in text
    assert f"| `{ROTATE.removesuffix('.patch')}` | clean | **conflict** | **conflict** |" in text
    assert f"## Conflicts on {bad}\n\n- `{ROTATE.removesuffix('.patch')}`: `src/core.cpp` hunk 28\n" in text
    assert f"- `{name}`: `src/core.cpp` (file gone)" in text
    assert f"## Conflicts on {good}" not in text
    assert "Made on 2026-01-01 by\n\n```sh\nturbotool patch rehearse\n```" in text
