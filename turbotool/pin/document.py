"""What rehearsals, bumps and the comparison with upstream itself print with --json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from msgspec import UNSET, UnsetType

from turbotool.pin.bump import Bumped, LeftOut
from turbotool.pin.origin import Altered, PinOrigin
from turbotool.pin.rehearse import ClashingPatch, Rehearsal
from turbotool.series.trial import Trial
from turbotool.system.documents import ErrorFields, document
from turbotool.upstream.lock import Upstream

F = TypeVar("F", bound="RehearsalFields")


@dataclass(frozen=True)
class RehearsalFields:
    """How each patch fares on another upstream, which can be dropped there, which are left out there, since upstream
    lacks what they are about, and which need repair; `seconds` of wall time, fetching included unless the upstream was
    `cached`. `commit` and `tag` are '' where the source does not tell them; `known_as` is the tag, else the commit,
    else the tree.
    """

    ok: bool
    ref: str
    commit: str
    tree: str
    source: str
    sha256: str
    cached: bool
    seconds: float
    patches: tuple[Trial, ...]
    droppable: tuple[str, ...]
    conflicts: tuple[ClashingPatch, ...]
    tag: str
    known_as: str
    absent: tuple[str, ...]
    error: ErrorFields | UnsetType = UNSET


@document("rehearsal")
@dataclass(frozen=True)
class RehearsalDocument(RehearsalFields):
    """One rehearsal."""


@document("rehearsals")
@dataclass(frozen=True)
class RehearsalsDocument:
    """Several rehearsals, in the order in which they were asked for."""

    ok: bool
    rehearsals: tuple[RehearsalFields, ...]
    error: ErrorFields | UnsetType = UNSET


@document("bump")
@dataclass(frozen=True)
class BumpDocument:
    """The new pin: upstream, git tree with the series, patches in order, those that fell away, whether it is proven.

    `absent` are those that fell away because upstream lacks the paths that they are about. `moved` is false if the
    upstream was the pin already.
    """

    ok: bool
    upstream: Upstream
    tree: str
    patches: tuple[str, ...]
    dropped: tuple[str, ...]
    proven: bool
    moved: bool
    absent: tuple[LeftOut, ...]


@document("vendor-check")
@dataclass(frozen=True)
class OriginDocument:
    """The pinned files beside upstream's own: `checked` is false where nothing could be compared; `reason` says why.

    `tree` is git's id of the pinned files, `ref` what was asked of the repository at `url`, `commit` what it is there.
    `identical` counts files; `altered` and `foreign` ones are not upstream's, `lacking` ones were left out by whoever
    packed them.
    """

    ok: bool
    checked: bool
    reason: str
    known_as: str
    tree: str
    url: str
    ref: str
    commit: str
    identical: int
    altered: tuple[Altered, ...]
    foreign: tuple[str, ...]
    lacking: tuple[str, ...]
    error: ErrorFields | UnsetType = UNSET


def origin_document(found: PinOrigin) -> OriginDocument:
    return OriginDocument(
        ok=found.error() is None,
        checked=found.checked,
        reason=found.reason,
        known_as=found.pinned.known_as,
        tree=found.pinned.tree,
        url=found.url,
        ref=found.ref,
        commit=found.commit,
        identical=found.identical,
        altered=found.altered,
        foreign=found.foreign,
        lacking=found.lacking,
    )


def rehearsal_document(done: Sequence[Rehearsal]) -> RehearsalDocument | RehearsalsDocument:
    """The document of one rehearsal; of several, each with its own."""
    if len(done) == 1:
        return _fields(RehearsalDocument, done[0])
    each = tuple(_fields(RehearsalFields, one) for one in done)
    return RehearsalsDocument(all(one.ok for one in each), each)


def _fields(of: type[F], done: Rehearsal) -> F:
    up = done.onto.upstream
    return of(
        ok=done.error() is None,
        ref=done.ref,
        commit=up.commit,
        tree=up.tree,
        source=up.source,
        sha256=up.sha256,
        cached=done.onto.cached,
        seconds=round(done.seconds, 1),
        patches=done.trials,
        droppable=done.droppable,
        conflicts=done.conflicts(),
        tag=up.tag,
        known_as=up.known_as,
        absent=done.absent,
    )


def bump_document(done: Bumped) -> BumpDocument:
    return BumpDocument(
        True, done.upstream, done.tree, done.patches, done.dropped, done.proven, done.moved, done.absent
    )
