"""`turbotool doctor`: look, print, and end with ToolMissing's code when the cpu backend cannot be built."""

from __future__ import annotations

import os
import sys

import click

from turbotool.cli.options import output_options
from turbotool.system.output import Output


@click.command()
@output_options
def doctor(out: Output) -> None:
    """Every tool that was looked for, what each backend lacks here, and the command that installs it."""
    from turbotool.build.host import this_host
    from turbotool.build.tools import find_tools
    from turbotool.doctor.examine import examine
    from turbotool.doctor.render import render
    from turbotool.errors import ToolMissing
    from turbotool.layout import find_layout

    report = examine(find_layout(), find_tools(os.environ), this_host())
    if not out.quiet and not out.json:
        out.say(render(report))
    out.document(report.as_json())
    if not report.ok:
        sys.exit(ToolMissing.exit_code)
