"""What a packager changed in llama.cpp is taken back before anything looks at the files."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_series import QUIET

from turbotool.errors import HashMismatch, SourceError
from turbotool.layout import Layout
from turbotool.pin import candidates
from turbotool.system.digest import sha256_file
from turbotool.system.locks import work_lock
from turbotool.system.session import Session
from turbotool.upstream import correction, sources
from turbotool.upstream.lock import Upstream
from turbotool.upstream.sources import FetchRequest

ARCHIVE = "package-1.0.tar.gz"
CHANGED, PRISTINE = "one\nhotfix\ntwo\n", "one\ntwo\n"
PATCH = """The packager's hotfix, taken back.

diff --git a/src/a.c b/src/a.c
--- a/src/a.c
+++ b/src/a.c
@@ -1,3 +1,2 @@
 one
-hotfix
 two
"""


class Site:
    """A release of a package with one file that its packager changed, and the correction that is for it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.layout = Layout(folder / "root", folder / "work", folder / "cache")
        self.session = Session(self.layout, QUIET)
        self.layout.lock_file.parent.mkdir(parents=True)
        self.archive = folder / ARCHIVE
        with tarfile.open(self.archive, "w:gz") as tar:
            info = tarfile.TarInfo("package-1.0/vendor/llama.cpp/src/a.c")
            info.size = len(CHANGED)
            tar.addfile(info, io.BytesIO(CHANGED.encode()))
        self.release = Upstream(
            "pypi",
            "",
            package="package",
            version="1.0",
            archive=ARCHIVE,
            sha256=sha256_file(self.archive),
            subdir="package-1.0/vendor/llama.cpp",
        )
        self.patch = correction.file_for(self.layout, self.release)
        monkeypatch.setattr(sources, "fetch_pypi", lambda *_: self.archive)

    def correct(self, text: str = PATCH) -> str:
        """Put a correction there; returns its sha256."""
        self.patch.parent.mkdir(exist_ok=True)
        self.patch.write_text(text, encoding="utf-8")
        return sha256_file(self.patch)

    def fetch(self, upstream: Upstream, name: str, *, relock: bool = False) -> tuple[Upstream, str]:
        scratch = self.layout.work / name
        scratch.mkdir(parents=True)
        found = sources.pypi(FetchRequest(self.session, upstream, scratch, relock=relock), scratch / "tree")
        return found, (scratch / "tree" / "src" / "a.c").read_text(encoding="utf-8")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


def test_the_files_of_a_release_are_corrected_and_the_lock_learns_by_what(site: Site) -> None:
    plain, text = site.fetch(site.release, "plain")
    assert (plain.correction, text) == ("", CHANGED)
    sha256 = site.correct()
    corrected, text = site.fetch(site.release, "corrected")
    assert (corrected.correction, text) == (sha256, PRISTINE)


@pytest.mark.parametrize("there", ["another", "none"])
def test_a_locked_release_takes_only_the_locked_correction(site: Site, there: str) -> None:
    locked = replace(site.release, tree="1" * 40, correction=site.correct())
    assert site.fetch(locked, "locked")[1] == PRISTINE
    if there == "another":
        site.correct(PATCH.replace("hotfix, taken", "change, taken"))
    else:
        site.patch.unlink()
    with pytest.raises(HashMismatch, match=r"package-1\.0\.patch: locked is"):
        site.fetch(locked, "other")
    found, text = site.fetch(locked, "relocked", relock=True)
    assert (found.correction != "", text) == ((True, PRISTINE) if there == "another" else (False, CHANGED))


def test_a_correction_that_does_not_fit_the_release_is_named_with_gits_words(site: Site) -> None:
    site.correct(PATCH.replace("-hotfix", "-hotfox"))
    with pytest.raises(SourceError, match=r"(?s)package-1\.0\.patch does not apply to .*src/a\.c"):
        site.fetch(site.release, "unfit")


def test_a_release_that_was_unpacked_before_is_unpacked_again_when_its_correction_changes(site: Site) -> None:
    with work_lock(candidates.store(site.session), "test") as there:
        before = candidates.pristine(there, site.release, None)
        assert candidates.pristine(there, site.release, None).cached
        site.correct()
        after = candidates.pristine(there, site.release, None)
        assert not after.cached
        assert after.upstream.tree != before.upstream.tree
        assert candidates.pristine(there, site.release, None).cached
