"""`turbotool patch`: the series."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from turbotool import series
from turbotool.cli import fail, output_options
from turbotool.commands import repair
from turbotool.layout import find_layout
from turbotool.output import Output


@click.group()
def patch() -> None:
    """The patch series: look at it, check it, apply and export it, try it elsewhere, repair it."""


@patch.command("list")
@output_options
def list_(out: Output) -> None:
    """Name, reason, size and files of every patch, in order."""
    layout = find_layout()
    patches = series.load(layout)
    overlay = [file.name for file in series.overlay(layout)]
    for entry in patches:
        about = entry.as_json()
        out.say(f"{entry.name}  {entry.reason or '-'}  +{about['added']} -{about['removed']}  {entry.subject}")
        for file in entry.files:
            out.detail(f"    {file.path}")
    out.say(f"{len(patches)} patches, {len(overlay)} files in the overlay")
    out.document({"ok": True, "patches": [entry.as_json() for entry in patches], "overlay": overlay})


@patch.command()
@output_options
def check(out: Output) -> None:
    """Try every patch in one pass; the vendored tree is not touched."""
    from turbotool.check import check_series
    from turbotool.conflict import lines_of

    checked = check_series(find_layout(), out)
    for trial in checked.trials:
        out.say(f"{trial.state:<9} {trial.name}{f'  ({trial.detail})' if trial.detail else ''}")
        for line in lines_of(trial.files, " " * 12):
            out.say(line)
    out.say(f"{len(checked.trials)} patches tried")
    for problem in checked.problems:
        out.warn(f"{problem.name}: {problem.message}")
    error = checked.error()
    if error:
        print(f"error: {error.message}\n  try: {error.hint}", file=sys.stderr)
    out.document({**checked.as_json(), **({"error": error.as_json()} if error else {})})
    sys.exit(error.exit_code if error else 0)


@patch.command()
@click.option("--relock", is_flag=True, help="Lock the series as it is on disk, after editing patches/ by hand.")
@click.option("--force", is_flag=True, help="Drop somebody's edits in the vendored tree.")
@output_options
def apply(relock: bool, force: bool, out: Output) -> None:
    """Bring the vendored tree to the locked series: one commit for the overlay, one for each patch."""
    from turbotool.apply import ensure_applied

    layout = find_layout()
    done = ensure_applied(layout, out, relock=relock, force=force)
    out.say(
        f"{layout.tree}: {done.patches} patches, tree {done.tree[:12]}" + (", already applied" if done.cached else "")
    )
    out.document({"ok": True, **asdict(done), "path": str(layout.tree.absolute())})


@patch.command()
@click.option("--from", "source", type=click.Path(path_type=Path), help="Export a repair work tree instead.")
@output_options
def export(source: Path | None, out: Output) -> None:
    """Write the commits of the vendored tree back to patches/ and the lock, byte for byte what apply reads."""
    from turbotool.export import export as write

    done = write(find_layout(), out, source=source)
    state = "written" if done.changed else "nothing changed"
    out.say(f"{len(done.patches)} patches, {len(done.overlay)} files in the overlay: {state}")
    out.document({"ok": True, **asdict(done)})


@patch.command("rehearse")
@click.option("--onto", "ref", required=True, metavar="REF", help="A version, an archive, a git ref, or ADDRESS@REF.")
@click.option("--subdir", default="", help="The folder inside an archive that holds the sources.")
@output_options
def rehearse_(ref: str, subdir: str, out: Output) -> None:
    """Try the series on another upstream: neither the lock nor the vendored tree is touched."""
    from turbotool.reference import parse_reference
    from turbotool.rehearse import lines, rehearse

    layout = find_layout()
    done = rehearse(layout, out, parse_reference(layout, ref, subdir=subdir))
    for line in lines(done):
        out.say(line)
    out.say(f"{done.seconds:.1f} s{' with both upstreams in the cache' if done.onto.cached else ''}")
    if error := done.error():
        fail(error, out, {**done.as_json(), "error": error.as_json()})
    out.document(done.as_json())


for command in (repair.continue_, repair.skip, repair.abort):
    patch.add_command(command)
