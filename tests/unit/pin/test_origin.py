"""The pin beside upstream's own repository: each file that is not upstream's is named, and no network is no proof."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from command_line import Done, typed, variables_of
from tiny_series import FILES, Project, commit, write

from turbotool.errors import HashMismatch, SourceError, UpstreamDiffers
from turbotool.pin import candidates
from turbotool.pin.document import origin_document
from turbotool.pin.origin import Altered, Entry, PinOrigin, check_origin, lines
from turbotool.system import git
from turbotool.system.documents import as_builtins
from turbotool.upstream.lock import Upstream, read_lock, write_upstream
from turbotool.upstream.tree import ensure_vendored


@dataclass(frozen=True)
class Packed:
    """A pin that is somebody's package of tag v1, which records no commit, and upstream's own bare repository."""

    project: Project
    bare: Path

    def repack(self, files: dict[str, str | None], executable: str = "") -> None:
        """Lock what the packager made of it: these files changed, None for one that is left out."""
        folder = self.bare.parent / "packed"
        shutil.copytree(self.project.upstream.folder, folder, ignore=shutil.ignore_patterns(".git"))
        for name, text in files.items():
            if text is None:
                (folder / name).unlink()
            else:
                write(folder, name, text)
        if executable:
            (folder / executable).chmod(0o755)
        ensure_vendored(self.project.session, upstream=Upstream("dir", ""), path=folder, relock=True)
        self.lock(tag="v1")

    def lock(self, *, tag: str) -> None:
        locked = read_lock(self.project.layout).upstream
        write_upstream(self.project.layout, replace(locked, source="pypi", commit="", url="", tag=tag))

    def check(self) -> PinOrigin:
        return check_origin(self.project.session, str(self.bare))


@pytest.fixture
def packed(project: Project, tmp_path: Path) -> Packed:
    ensure_vendored(project.session)
    bare = tmp_path / "bare.git"
    project.upstream.run("tag", "--annotate", "--message", "a tag of its own", "annotated", "v1")
    project.upstream.run("clone", "--quiet", "--bare", project.upstream.folder, bare)
    return Packed(project, bare)


def blob(project: Project, name: str) -> str:
    return project.upstream.text("rev-parse", f"v1:{name}")


@pytest.mark.parametrize("tag", ["v1", "annotated"])
@pytest.mark.parametrize("filtered", ["true", "false"])
def test_a_package_that_changes_nothing_is_identical(packed: Packed, tag: str, filtered: str) -> None:
    git.Git(packed.bare).run("config", "uploadpack.allowFilter", filtered)
    packed.lock(tag=tag)
    found = packed.check()
    assert (found.checked, found.identical, found.error()) == (True, len(FILES), None)
    assert found.commit == packed.project.upstream.text("rev-parse", "v1^{commit}")
    fields = as_builtins(origin_document(found))
    assert (fields["ok"], fields["checked"], fields["known_as"], fields["ref"]) == (True, True, tag, f"refs/tags/{tag}")


def test_what_is_compared_is_the_locked_commit_where_one_is_recorded(packed: Packed) -> None:
    head = packed.project.upstream.text("rev-parse", "HEAD")
    assert (check_origin(packed.project.session).commit, packed.check().ref) == (head, head)  # the locked repository


def test_a_changed_byte_is_an_error_that_names_the_file(packed: Packed) -> None:
    packed.repack({"src/core.cpp": FILES["src/core.cpp"].replace("line 7\n", "line 8\n")})
    found = packed.check()
    here = packed.project.tree.text("rev-parse", f"{git.BASE_REF}:src/core.cpp")
    there = Entry("100644", blob(packed.project, "src/core.cpp"))
    assert found.altered == (Altered("src/core.cpp", Entry("100644", here), there),)
    assert (found.identical, found.lacking, found.foreign) == (len(FILES) - 1, (), ())
    assert isinstance(found.error(), UpstreamDiffers)
    assert "altered  src/core.cpp: other bytes" in lines(found, shown=1)


def test_an_executable_bit_is_a_difference_of_its_own(packed: Packed) -> None:
    packed.repack({}, executable="src/core.cpp")
    (file,) = packed.check().altered
    assert (file.path, file.difference) == ("src/core.cpp", "mode 100755 instead of 100644")
    assert file.pinned.blob == file.upstream.blob
    assert isinstance(packed.check().error(), UpstreamDiffers)


def test_what_a_package_leaves_out_is_listed_and_no_error(packed: Packed) -> None:
    packed.repack({"run.sh": None, "kept.log": None})
    found = packed.check()
    assert (found.lacking, found.error()) == (("kept.log", "run.sh"), None)
    assert lines(found, shown=1)[:2] == ["lacking  kept.log", "lacking  and 1 more"]


def test_a_file_that_somebody_put_there_is_an_error(packed: Packed) -> None:
    packed.repack({"src/extra.cpp": "int extra;\n"})
    found = packed.check()
    assert found.foreign == ("src/extra.cpp",)
    error = found.error()
    assert isinstance(error, UpstreamDiffers)
    assert "1 pinned files are not those of refs/tags/v1" in error.message
    assert "the first: src/extra.cpp" in error.message


def test_our_own_edits_and_patches_are_not_what_is_compared(packed: Packed) -> None:
    packed.lock(tag="v1")
    write(packed.project.layout.tree, "src/core.cpp", "mine\n")
    commit(packed.project.tree, "mine")
    assert packed.check().error() is None
    assert (packed.project.layout.tree / "src/core.cpp").read_text() == "mine\n"


@pytest.mark.parametrize("address", ["https://localhost:1/x.git", "no such folder"])
def test_without_a_network_nothing_is_checked_and_that_is_said(packed: Packed, address: str) -> None:
    packed.lock(tag="v1")
    found = check_origin(packed.project.session, address)
    fields = as_builtins(origin_document(found))
    assert (fields["ok"], fields["checked"], fields["commit"], fields["identical"]) == (False, False, "", 0)
    assert "git cannot fetch refs/tags/v1" in fields["reason"]
    error = found.error()
    assert isinstance(error, SourceError)
    assert error.message.startswith("NOT CHECKED whether the pinned v1 is upstream's own")
    assert lines(found, shown=1)[0].startswith("NOT CHECKED: ")


def test_a_tag_that_upstream_does_not_have_proves_nothing(packed: Packed) -> None:
    packed.project.upstream.run("checkout", "-q", "-b", "v7")  # a branch of that name is no tag
    packed.lock(tag="v7")
    found = packed.check()
    assert (found.checked, isinstance(found.error(), SourceError)) == (False, True)
    assert "'refs/tags/v7'" in found.reason


def test_a_pin_of_which_neither_tag_nor_commit_is_known_cannot_be_checked(packed: Packed) -> None:
    packed.lock(tag="")
    found = packed.check()
    assert not found.checked
    assert found.reason == "the lock names neither commit nor tag of its pypi source"


def test_a_cache_that_holds_other_files_for_the_pin_is_not_believed(packed: Packed) -> None:
    packed.lock(tag="v1")
    assert packed.check().error() is None
    there = candidates.repository(candidates.store(packed.project.session))
    ref = f"{candidates.REFS}/{read_lock(packed.project.layout).upstream.tree}"
    write(there.folder, "other", "other\n")
    there.run("update-ref", ref, commit(there, "other"))
    assert packed.check().identical == len(FILES)  # from the vendored tree again
    there.run("update-ref", ref, commit(there, "other"))
    shutil.rmtree(packed.project.layout.tree)
    locked = read_lock(packed.project.layout).upstream
    write_upstream(packed.project.layout, replace(locked, source="git", url=str(packed.bare), ref="v1", tree="1" * 40))
    with pytest.raises(HashMismatch, match=f"locked is {'1' * 40}"):
        packed.check()


@pytest.fixture
def check(packed: Packed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Done:
    for name, value in variables_of(packed.project.layout).items():
        monkeypatch.setenv(name, value)
    packed.repack({"src/extra.cpp": "int extra;\n"})
    return typed(["vendor", "check", "--url", packed.bare, "--json"], capsys)


def test_the_command_ends_with_the_code_of_its_error_and_its_document_has_both(check: Done) -> None:
    assert (check.code, check.document["ok"], check.document["checked"]) == (UpstreamDiffers.exit_code, False, True)
    assert (check.document["foreign"], check.document["error"]["code"]) == (["src/extra.cpp"], check.code)
    assert "foreign  src/extra.cpp" in check.stderr
