"""`turbotool patch continue | skip | abort`: the ways on from a patch that does not apply, in a bump or without one."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from turbotool.cli.options import output_options, proof_options
from turbotool.layout import find_layout
from turbotool.system.output import Output

if TYPE_CHECKING:  # the command line imports this module to print its help
    from turbotool.pin.bump import Bumped


@click.command("continue")
@proof_options
@output_options
def continue_(backend: str | None, no_verify: bool, out: Output) -> None:
    """Take the repaired files as the patch that stopped, and go on with the rest."""
    _resume(out, "" if no_verify else backend, skip=False)


@click.command()
@proof_options
@output_options
def skip(backend: str | None, no_verify: bool, out: Output) -> None:
    """Leave out the patch that stopped, and go on with the rest."""
    _resume(out, "" if no_verify else backend, skip=True)


def _resume(out: Output, backend: str | None, *, skip: bool) -> None:
    from turbotool.pin.bump import go_on
    from turbotool.series.resume import resume

    layout = find_layout()
    bumped = go_on(layout, out, skip=skip, backend=backend)
    if bumped is not None:
        publish(bumped, out)
        return
    done = resume(layout, out, skip=skip)
    out.say(f"{len(done.patches)} patches, {len(done.overlay)} files in the overlay: written")
    out.document({"ok": True, **asdict(done)})


@click.command()
@output_options
def abort(out: Output) -> None:
    """Give up the bump or the repair; series, lock and vendored tree stay as they are."""
    from turbotool.pin.bump import give_up
    from turbotool.series.resume import abort

    layout = find_layout()
    attempt = give_up(layout, out)
    place = attempt.folder if attempt else abort(layout, out)
    out.say(f"removed {place}; nothing else was changed")
    out.document({"ok": True, "removed": str(place)})


def publish(bumped: Bumped, out: Output) -> None:
    """Say what the pin is now."""
    from turbotool.pin.candidates import describe

    up = bumped.upstream
    name = f"{describe(up)} ({up.commit[:9] or up.tree[:9]})"
    if not bumped.moved:
        out.say(f"nothing to do: {name} is the pin")
    else:
        for patch in bumped.dropped:
            out.say(f"fell away: {patch}; take its line out of patches/README.md")
        proof = "built and verified" if bumped.proven else "NOT built, NOT verified"
        out.say(f"the pin is {name} with {len(bumped.patches)} patches, {proof}; commit patches/ and vendor/lock.toml")
    out.document({"ok": True, **asdict(bumped)})
