"""`turbotool patch`: the series."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from turbotool.cli import repair
from turbotool.cli.options import fail, output_options
from turbotool.layout import find_layout
from turbotool.series import files as series
from turbotool.series.new import OPEN
from turbotool.series.patchfile import REASONS, Patch
from turbotool.system.output import Output

if TYPE_CHECKING:  # the command line imports this module to print its help
    from turbotool.pin.rehearse import Rehearsal


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
    from turbotool.series.check import check_series
    from turbotool.series.conflict import lines_of

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
    from turbotool.series.apply import ensure_applied

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
    from turbotool.series.export import export as write

    done = write(find_layout(), out, source=source)
    state = "written" if done.changed else "nothing changed"
    out.say(f"{len(done.patches)} patches, {len(done.overlay)} files in the overlay: {state}")
    out.document({"ok": True, **asdict(done)})


@patch.command("rehearse")
@click.option(
    "--onto",
    "refs",
    required=True,
    multiple=True,
    metavar="REF",
    help="A version, an archive, a git ref, or ADDRESS@REF.",
)
@click.option("--subdir", default="", help="The folder inside an archive that holds the sources.")
@click.option("--report", type=click.Path(path_type=Path), help="Write what happened to a Markdown file.")
@output_options
def rehearse_(refs: tuple[str, ...], subdir: str, report: Path | None, out: Output) -> None:
    """Try the series on other upstreams: neither the lock nor the vendored tree is touched. --onto is repeatable."""
    import time

    from turbotool.pin.reference import parse_reference
    from turbotool.pin.rehearsal_page import page
    from turbotool.pin.rehearse import lines, rehearse
    from turbotool.system.files import write_file
    from turbotool.system.process import display

    layout = find_layout()
    references = [parse_reference(layout, ref, subdir=subdir) for ref in refs]
    rehearsals = []
    for reference in references:
        done = rehearse(layout, out, reference)
        for line in lines(done):
            out.say(line)
        out.say(f"{done.seconds:.1f} s{' with the upstream in the cache' if done.onto.cached else ''}")
        rehearsals.append(done)
    if report:
        words = [word for ref in refs for word in ("--onto", ref)] + ["--report", report.as_posix()]
        command = f"turbotool patch rehearse {display(words)}"
        write_file(report, page(rehearsals, command, time.strftime("%Y-%m-%d")).encode())
    document = combined(rehearsals)
    error = next((error for done in rehearsals if (error := done.error())), None)
    if error:
        fail(error, out, {**document, "error": error.as_json()})
    out.document(document)


def combined(rehearsals: Sequence[Rehearsal]) -> dict[str, object]:
    """The document of one rehearsal; of several, each with its own."""
    documents = [done.as_json() for done in rehearsals]
    return documents[0] if len(documents) == 1 else {"ok": all(d["ok"] for d in documents), "rehearsals": documents}


@patch.command()
@click.argument("name")
@click.option("--why", default=OPEN, help="What the patch is for, in a sentence or a paragraph.")
@click.option("--reason", type=click.Choice(REASONS), default="feature", show_default=True)
@click.option("--upstream", default="none", show_default=True, help="Link to upstream's issue or pull request.")
@click.option("--drop-when", default=OPEN, help="The condition under which the patch can go.")
@output_options
def new(name: str, why: str, reason: str, upstream: str, drop_when: str, out: Output) -> None:
    """Make the edits in the vendored tree the last patch of the series. NAME is its name or its subject."""
    from turbotool.series.new import Message, new_patch, subject_of

    layout = find_layout()
    message = Message(subject_of(name), why, reason, upstream, drop_when)
    made, done = new_patch(layout, out, message)
    out.say(f"{layout.patches / made}: written; say in patches/README.md why it exists")
    if not message.complete:
        out.say(f"its message is open: git -C {layout.tree} commit --amend, then turbotool patch export")
    out.document({"ok": True, "patch": made, "complete": message.complete, **asdict(done)})


@patch.command("lint")
@output_options
def lint_(out: Output) -> None:
    """Trailers, size, call sites only, white space, and the overlay's formatting by upstream's .clang-format."""
    import os

    from turbotool.series.lint import lint

    linted = lint(find_layout(), os.environ)
    for problem in linted.problems:
        out.warn(f"{problem.name}: {problem.message}")
    for skipped in linted.skipped:
        out.say(f"not looked at: {skipped}")
    out.say(f"{linted.patches} patches, {linted.overlay} files in the overlay: {len(linted.problems)} problems")
    if error := linted.error():
        fail(error, out, {**linted.as_json(), "error": error.as_json()})
    out.document(linted.as_json())


@patch.command()
@output_options
def log(out: Output) -> None:
    """Why each patch exists: subject, reason, when it can go, size; with -v its whole message."""
    patches = series.load(find_layout())
    for entry in patches:
        about = entry.as_json()
        out.say(f"{entry.name}  +{about['added']} -{about['removed']} in {len(entry.files)} files")
        out.say(f"    {entry.reason or 'no reason'}: {entry.subject}")
        out.say(f"    drop when: {entry.trailers.get('Drop-when', 'not said')}")
        out.detail("".join(f"    | {line}\n" for line in entry.body.splitlines()))
    out.document({"ok": True, "patches": [{**entry.as_json(), **_message(entry)} for entry in patches]})


def _message(entry: Patch) -> dict[str, object]:
    return {
        "upstream": entry.trailers.get("Upstream", ""),
        "drop_when": entry.trailers.get("Drop-when", ""),
        "body": entry.body,
    }


for command in (repair.continue_, repair.skip, repair.abort):
    patch.add_command(command)
