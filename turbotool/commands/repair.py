"""`turbotool patch continue | skip | abort`: the ways on from a patch that does not apply."""

from __future__ import annotations

from dataclasses import asdict

import click

from turbotool.cli import output_options
from turbotool.layout import find_layout
from turbotool.output import Output


@click.command("continue")
@output_options
def continue_(out: Output) -> None:
    """Take the repaired files as the patch that stopped, and go on with the rest."""
    _resume(out, skip=False)


@click.command()
@output_options
def skip(out: Output) -> None:
    """Leave out the patch that stopped, and go on with the rest."""
    _resume(out, skip=True)


def _resume(out: Output, *, skip: bool) -> None:
    from turbotool.resume import resume

    done = resume(find_layout(), out, skip=skip)
    out.say(f"{len(done.patches)} patches, {len(done.overlay)} files in the overlay: written")
    out.document({"ok": True, **asdict(done)})


@click.command()
@output_options
def abort(out: Output) -> None:
    """Give up the repair; series, lock and vendored tree stay as they are."""
    from turbotool.resume import abort

    place = abort(find_layout(), out)
    out.say(f"removed {place}; nothing else was changed")
    out.document({"ok": True, "removed": str(place)})
