"""What the commands on the patch series print with --json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from msgspec import UNSET, UnsetType

from turbotool.series.apply import Applied
from turbotool.series.check import Checked
from turbotool.series.export import Exported
from turbotool.series.files import OverlayFile, Problem
from turbotool.series.lint import Linted
from turbotool.series.patchfile import Patch
from turbotool.series.trial import Trial
from turbotool.system.documents import ErrorFields, document


@dataclass(frozen=True)
class PatchFields:
    """One patch; `added` and `removed` are lines in upstream's files."""

    name: str
    subject: str
    reason: str
    files: tuple[str, ...]
    added: int
    removed: int


@dataclass(frozen=True)
class LoggedPatch(PatchFields):
    """One patch with what its message says; `needs` are the paths of upstream that it is about."""

    upstream: str
    drop_when: str
    body: str
    needs: tuple[str, ...]


@document("patch-list")
@dataclass(frozen=True)
class PatchListDocument:
    """The series in order, and the names of the overlay's files."""

    ok: bool
    patches: tuple[PatchFields, ...]
    overlay: tuple[str, ...]


@document("patch-log")
@dataclass(frozen=True)
class PatchLogDocument:
    """Why each patch exists."""

    ok: bool
    patches: tuple[LoggedPatch, ...]


@document("patch-check")
@dataclass(frozen=True)
class PatchCheckDocument:
    """How each patch fares on the locked upstream, and what is wrong with the series itself."""

    ok: bool
    patches: tuple[Trial, ...]
    problems: tuple[Problem, ...]
    error: ErrorFields | UnsetType = UNSET


@document("patch-apply")
@dataclass(frozen=True)
class PatchApplyDocument:
    """The patched tree: git's tree id and commit, how many patches it has, where it is."""

    ok: bool
    tree: str
    head: str
    cached: bool
    patches: int
    path: str


@document("patch-export")
@dataclass(frozen=True)
class PatchExportDocument:
    """What was written to patches/: names in order, the overlay's files, git's tree id of the whole."""

    ok: bool
    patches: tuple[str, ...]
    overlay: tuple[str, ...]
    tree: str
    changed: bool


@document("patch-new")
@dataclass(frozen=True)
class PatchNewDocument:
    """A new patch; `complete` says whether its message has everything. The rest is as in `patch-export`."""

    ok: bool
    patch: str
    complete: bool
    patches: tuple[str, ...]
    overlay: tuple[str, ...]
    tree: str
    changed: bool


@document("patch-lint")
@dataclass(frozen=True)
class PatchLintDocument:
    """Where patches and overlay leave the policy, and what could not be looked at."""

    ok: bool
    problems: tuple[Problem, ...]
    skipped: tuple[str, ...]
    error: ErrorFields | UnsetType = UNSET


@document("patch-abort")
@dataclass(frozen=True)
class PatchAbortDocument:
    """The folder that was removed."""

    ok: bool
    removed: str


def patch_list(patches: tuple[Patch, ...], overlay: tuple[OverlayFile, ...]) -> PatchListDocument:
    named = tuple(file.name for file in overlay)
    return PatchListDocument(True, tuple(PatchFields(*_fields(patch)) for patch in patches), named)


def patch_log(patches: tuple[Patch, ...]) -> PatchLogDocument:
    return PatchLogDocument(True, tuple(LoggedPatch(*_fields(patch), *_message(patch)) for patch in patches))


def patch_check(checked: Checked) -> PatchCheckDocument:
    return PatchCheckDocument(checked.ok, checked.trials, checked.problems)


def patch_apply(done: Applied, path: Path) -> PatchApplyDocument:
    return PatchApplyDocument(True, done.tree, done.head, done.cached, done.patches, str(path.absolute()))


def patch_export(done: Exported) -> PatchExportDocument:
    return PatchExportDocument(True, done.patches, done.overlay, done.tree, done.changed)


def patch_new(name: str, done: Exported, *, complete: bool) -> PatchNewDocument:
    return PatchNewDocument(True, name, complete, done.patches, done.overlay, done.tree, done.changed)


def patch_lint(linted: Linted) -> PatchLintDocument:
    return PatchLintDocument(not linted.problems, linted.problems, linted.skipped)


def _fields(patch: Patch) -> tuple[str, str, str, tuple[str, ...], int, int]:
    files = tuple(file.path for file in patch.files)
    return patch.name, patch.subject, patch.reason, files, patch.added, patch.removed


def _message(patch: Patch) -> tuple[str, str, str, tuple[str, ...]]:
    return patch.trailers.get("Upstream", ""), patch.trailers.get("Drop-when", ""), patch.body, patch.needs
