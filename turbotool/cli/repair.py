"""`turbotool patch continue | skip | abort`: the ways on from a patch that does not apply, in a bump or without one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from turbotool.cli.options import proof_options, session_options
from turbotool.system.session import Session

if TYPE_CHECKING:  # the command line imports this module to print its help
    from turbotool.pin.bump import Bumped


@click.command("continue")
@proof_options
@session_options
def continue_(backend: str | None, no_verify: bool, session: Session) -> None:
    """Take the repaired files as the patch that stopped, and go on with the rest."""
    _resume(session, "" if no_verify else backend, skip=False)


@click.command()
@proof_options
@session_options
def skip(backend: str | None, no_verify: bool, session: Session) -> None:
    """Leave out the patch that stopped, and go on with the rest."""
    _resume(session, "" if no_verify else backend, skip=True)


def _resume(session: Session, backend: str | None, *, skip: bool) -> None:
    from turbotool.pin.bump import go_on
    from turbotool.series.document import patch_export
    from turbotool.series.resume import resume

    bumped = go_on(session, skip=skip, backend=backend)
    if bumped is not None:
        publish(bumped, session)
        return
    done = resume(session, skip=skip)
    session.out.result(f"{len(done.patches)} patches, {len(done.overlay)} files in the overlay: written")
    session.out.document(patch_export(done))


@click.command()
@session_options
def abort(session: Session) -> None:
    """Give up the bump or the repair; series, lock and vendored tree stay as they are."""
    from turbotool.pin.bump import give_up
    from turbotool.series.document import PatchAbortDocument
    from turbotool.series.resume import abort

    place = give_up(session) or abort(session)
    session.out.result(f"removed {place}; nothing else was changed")
    session.out.document(PatchAbortDocument(True, str(place)))


def publish(bumped: Bumped, session: Session) -> None:
    """Say what the pin is now."""
    from turbotool.pin.candidates import describe
    from turbotool.pin.document import bump_document
    from turbotool.series.needs import lacks

    up = bumped.upstream
    name = f"{describe(up)} ({up.short})"
    if not bumped.moved:
        session.out.result(f"nothing to do: {name} is the pin")
    else:
        absent = {one.patch: one.missing for one in bumped.absent}
        for patch in bumped.dropped:
            why = f", since {lacks(absent[patch])}" if patch in absent else ""
            session.out.result(f"fell away{why}: {patch}; take its line out of patches/README.md")
        if absent:
            session.out.result("what was left out for that is in git's history, for an upstream that has it")
        proof = "built and verified" if bumped.proven else "NOT built, NOT verified"
        session.out.result(
            f"the pin is {name} with {len(bumped.patches)} patches, {proof}; commit patches/ and vendor/lock.toml"
        )
        if up.source != "git":
            session.out.result("turbotool vendor check compares it with upstream's own repository")
    session.out.document(bump_document(bumped))
