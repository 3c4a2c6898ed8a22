"""`turbotool doctor`: what was looked for, and what is missing."""

from __future__ import annotations

import os

import click

from turbotool.cli.options import fail, session_options
from turbotool.system.session import Session


@click.command()
@session_options
def doctor(session: Session) -> None:
    """Every tool that was looked for, what each backend lacks here, and the command that installs it."""
    from turbotool.build.host import this_host
    from turbotool.build.tools import find_tools
    from turbotool.doctor.document import doctor_document
    from turbotool.doctor.examine import examine
    from turbotool.doctor.render import render

    report = examine(session.layout, find_tools(os.environ), this_host())
    if not session.out.json:  # drawing it takes longer than looking
        session.out.result(render(report))
    document = doctor_document(report)
    if error := report.error():
        fail(error, session.out, document)
    session.out.document(document)
