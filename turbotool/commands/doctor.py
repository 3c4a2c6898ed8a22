"""`turbotool doctor`: look, print, and end with ToolMissing's code when the cpu backend cannot be built."""

from __future__ import annotations

import os
import sys

import click

from turbotool.cli import output_options
from turbotool.output import Output


@click.command()
@output_options
def doctor(out: Output) -> None:
    """Every tool that was looked for, what each backend lacks here, and the command that installs it."""
    from turbotool.backend import this_host
    from turbotool.doctor import examine, render
    from turbotool.errors import ToolMissing
    from turbotool.layout import find_layout
    from turbotool.tools import find_tools

    report = examine(find_layout(), find_tools(os.environ), this_host())
    if not out.quiet and not out.json:
        out.say(render(report))
    out.document(report.as_json())
    if not report.ok:
        sys.exit(ToolMissing.exit_code)
