"""Bump: move the pin to another upstream. It moves as a whole, at the end, and only if the result is proven."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from turbotool.build.backends import find_backend
from turbotool.errors import TurbotoolError
from turbotool.layout import Layout
from turbotool.pin.attempt import Attempt, begin, check_pin, find_attempt, place
from turbotool.pin.reference import Reference
from turbotool.series import files as series
from turbotool.series import needs, repair, resume
from turbotool.series.apply import ensure_applied
from turbotool.series.export import export
from turbotool.system.git import BASE_REF, Git
from turbotool.system.locks import work_lock
from turbotool.system.session import Session
from turbotool.upstream import journal
from turbotool.upstream.lock import Upstream, read_lock

UNPROVEN = (
    "not proven: nothing was compiled and no model was run on this upstream; "
    "turbotool build && turbotool verify --quick does it"
)


@dataclass(frozen=True)
class LeftOut:
    """A patch that fell away because upstream does not have the paths that it is about."""

    patch: str
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Bumped:
    """The new pin: upstream, git tree with the series, patches in order, those that fell away; is it proven?

    `absent` are those of the last whose subject upstream does not have. `moved` is False if the upstream was the pin
    already.
    """

    upstream: Upstream
    tree: str
    patches: tuple[str, ...]
    dropped: tuple[str, ...]
    proven: bool
    moved: bool = True
    absent: tuple[LeftOut, ...] = ()


def bump(session: Session, reference: Reference, *, backend: str | None) -> Bumped:
    """Move the pin to the upstream that `reference` names, with the series merged onto it.

    The result is built for `backend` and verified first; None leaves that out, and says so. Whatever fails, the pin
    stays as it is, and the attempt stays where `continue`, `skip` and `abort` find it.
    Raises UsageMistake for a backend that there is not, PatchConflict with its report, what building raises,
    VerificationFailed, and what `attempt.begin` raises.
    """
    _require(backend)
    with work_lock(session, f"bump to {reference.text}") as held:
        journal.recover(held)
        attempt = begin(held, reference, backend)
        if attempt is None:
            lock = read_lock(held.layout)
            return Bumped(lock.upstream, lock.series.tree, series.names(held.layout), (), proven=False, moved=False)
        with _kept(held, attempt):
            ensure_applied(held.at(attempt.layout(held.layout)), relock=True)
            return _complete(held, attempt)


def go_on(session: Session, *, skip: bool, backend: str | None = None) -> Bumped | None:
    """Continue the attempt that is under way, from a repaired patch or from commits in its tree; None if there is none.

    It is proven as `bump` was told, or for another `backend`; an empty one leaves the proof out.
    Raises what `bump` and `resume.resume` raise.
    """
    _require(backend)
    with work_lock(session, "continue a bump") as held:
        journal.recover(held)
        attempt = find_attempt(held.layout)
        if attempt is None:
            return None
        if backend is not None:
            attempt = replace(attempt, backend=backend or None)
        there = attempt.layout(held.layout)
        with _kept(held, attempt):
            if repair.find_place(there) or skip:
                resume.resume(held.at(there), skip=skip)
            return _complete(held, attempt)


def give_up(session: Session) -> Path | None:
    """Remove the attempt that is under way, whatever its record says; returns where it was, None if there is none."""
    with work_lock(session, "abort a bump") as held:
        journal.recover(held)
        there = place(held.layout)
        if not there.is_dir():
            return None
        journal.discard(held.layout, there)
        return there


def _require(backend: str | None) -> None:
    """Look at the name before anything is fetched. Raises UsageMistake for a backend that there is not."""
    if backend:
        find_backend(backend)


@contextmanager
def _kept(session: Session, attempt: Attempt) -> Iterator[None]:
    """Say, after any failure, what is as before and where to go on."""
    try:
        yield
    except TurbotoolError:
        there = attempt.layout(session.layout)
        session.out.warn(f"the bump to {attempt.ref} is not finished; lock, patches and vendored tree are as before")
        if repair.find_place(there) is None:
            session.out.warn(
                f"its tree is {there.tree}: edit and commit there, then turbotool patch continue; or abort"
            )
        raise


def _complete(session: Session, attempt: Attempt) -> Bumped:
    there = attempt.layout(session.layout)
    check_pin(session, attempt)
    export(session.at(there))
    if attempt.backend is None:
        session.out.warn(UNPROVEN)
    else:
        prove(session.at(there), attempt.backend)
    lock, names = read_lock(there), series.names(there)
    dropped = tuple(name for name in attempt.names if name not in names)
    absent = _absent(session, there, dropped)
    journal.adopt_bump(session.layout, place(session.layout), there)
    return Bumped(lock.upstream, lock.series.tree, names, dropped, attempt.backend is not None, absent=absent)


def _absent(session: Session, there: Layout, dropped: Sequence[str]) -> tuple[LeftOut, ...]:
    """Those of the patches that fell away of which `there` does not have the subject."""
    paths = needs.paths(Git(there.tree, session.keep), BASE_REF)
    patches = (patch for patch in series.load(session.layout) if patch.name in dropped)
    found = (LeftOut(patch.name, needs.missing(patch, paths)) for patch in patches)
    return tuple(one for one in found if one.missing)


def prove(there: Session, backend: str) -> None:
    """Build what `there` locks and run the quick checks. Raises what building raises, VerificationFailed."""
    from turbotool.verify.run import run
    from turbotool.verify.verification import table

    proof = run(there, backend=backend, quick=True)
    there.out.say(table(proof.verification))
    if error := proof.error():
        raise error
