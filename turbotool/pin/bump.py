"""Bump: move the pin to another upstream. It moves as a whole, at the end, and only if the result is proven."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from turbotool.errors import TurbotoolError, VerificationFailed
from turbotool.layout import Layout
from turbotool.pin.attempt import Attempt, begin, check_pin, find_attempt
from turbotool.pin.reference import Reference
from turbotool.series import files as series
from turbotool.series import repair, resume
from turbotool.series.apply import ensure_applied
from turbotool.series.export import export
from turbotool.system.locks import work_lock
from turbotool.system.output import Output
from turbotool.upstream import journal
from turbotool.upstream.lock import Upstream, read_lock

UNPROVEN = (
    "not proven: nothing was compiled and no model was run on this upstream; "
    "turbotool build && turbotool verify --quick does it"
)


@dataclass(frozen=True)
class Bumped:
    """The new pin: upstream, git tree with the series, patches in order, those that fell away; is it proven?

    `moved` is False if the upstream was the pin already.
    """

    upstream: Upstream
    tree: str
    patches: tuple[str, ...]
    dropped: tuple[str, ...]
    proven: bool
    moved: bool = True


def bump(layout: Layout, out: Output, reference: Reference, *, backend: str | None) -> Bumped:
    """Move the pin to the upstream that `reference` names, with the series merged onto it.

    The result is built for `backend` and verified first; None leaves that out, and says so. Whatever fails, the pin
    stays as it is, and the attempt stays where `continue`, `skip` and `abort` find it.
    Raises PatchConflict with its report, what building raises, VerificationFailed, and what `attempt.begin` raises.
    """
    with work_lock(layout, out, f"bump to {reference.text}") as keep:
        journal.recover(layout, out, keep)
        attempt = begin(layout, out, keep, reference, backend)
        if attempt is None:
            lock = read_lock(layout)
            return Bumped(lock.upstream, lock.series.tree, series.names(layout), (), proven=False, moved=False)
        with _kept(layout, out, attempt):
            ensure_applied(attempt.layout(layout), out, relock=True)
            return _complete(layout, out, keep, attempt)


def go_on(layout: Layout, out: Output, *, skip: bool, backend: str | None = None) -> Bumped | None:
    """Continue the attempt that is under way, from a repaired patch or from commits in its tree; None if there is none.

    It is proven as `bump` was told, or for another `backend`; an empty one leaves the proof out.
    Raises what `bump` and `resume.resume` raise.
    """
    with work_lock(layout, out, "continue a bump") as keep:
        journal.recover(layout, out, keep)
        attempt = find_attempt(layout)
        if attempt is None:
            return None
        if backend is not None:
            attempt = replace(attempt, backend=backend or None)
        there = attempt.layout(layout)
        with _kept(layout, out, attempt):
            if repair.find(there) or skip:
                resume.resume(there, out, skip=skip)
            return _complete(layout, out, keep, attempt)


def give_up(layout: Layout, out: Output) -> Attempt | None:
    """Remove the attempt that is under way; None if there is none."""
    with work_lock(layout, out, "abort a bump") as keep:
        journal.recover(layout, out, keep)
        attempt = find_attempt(layout)
        if attempt is not None:
            journal.discard(layout, attempt.folder)
        return attempt


@contextmanager
def _kept(layout: Layout, out: Output, attempt: Attempt) -> Iterator[None]:
    """Say, after any failure, what is as before and where to go on."""
    try:
        yield
    except TurbotoolError:
        there = attempt.layout(layout)
        out.warn(f"the bump to {attempt.ref} is not finished; lock, patches and vendored tree are as before")
        if repair.find(there) is None:
            out.warn(f"its tree is {there.tree}: edit and commit there, then turbotool patch continue; or abort")
        raise


def _complete(layout: Layout, out: Output, keep: tuple[int, ...], attempt: Attempt) -> Bumped:
    there = attempt.layout(layout)
    check_pin(layout, keep, attempt)
    export(there, out)
    if attempt.backend is None:
        out.warn(UNPROVEN)
    else:
        prove(there, out, attempt.backend)
    lock, names = read_lock(there), series.names(there)
    journal.adopt_bump(layout, attempt.folder, there)
    dropped = tuple(name for name in attempt.names if name not in names)
    return Bumped(lock.upstream, lock.series.tree, names, dropped, proven=attempt.backend is not None)


def prove(there: Layout, out: Output, backend: str) -> None:
    """Build what `there` locks and run the quick checks. Raises what building raises, VerificationFailed."""
    from turbotool.inputs.default_model import choose_model
    from turbotool.programs.choose import choose_binaries
    from turbotool.verify import run
    from turbotool.verify import verification as verify

    model = choose_model(there, None, out)
    binaries = choose_binaries(there, backend, None, out)
    context = run.make_context(there, backend, binaries, model, None, out, quick=True)
    result = verify.verify(context, verify.select((), quick=True))
    out.say(verify.table(result))
    if not result.ok:
        raise VerificationFailed(
            f"{len(result.failed)} of {len(result.checks)} checks failed: {', '.join(result.failed)}",
            hint=f"read {context.runner.log}",
        )
