"""`turbotool patch`: the series."""

from __future__ import annotations

from pathlib import Path

import click

from turbotool.cli import repair
from turbotool.cli.options import SUBDIR, fail, session_options
from turbotool.series import files as series
from turbotool.series.new import OPEN
from turbotool.series.patchfile import REASONS
from turbotool.system.session import Session


@click.group()
def patch() -> None:
    """The patch series: look at it, check it, apply and export it, try it elsewhere, repair it."""


@patch.command("list")
@session_options
def list_(session: Session) -> None:
    """Name, reason, size and files of every patch, in order."""
    from turbotool.series.document import patch_list

    patches = series.load(session.layout)
    overlay = series.overlay(session.layout)
    for entry in patches:
        session.out.result(f"{entry.name}  {entry.reason or '-'}  +{entry.added} -{entry.removed}  {entry.subject}")
        for file in entry.files if session.out.verbose else ():
            session.out.result(f"    {file.path}")
    session.out.result(f"{len(patches)} patches, {len(overlay)} files in the overlay")
    session.out.document(patch_list(patches, overlay))


@patch.command()
@session_options
def check(session: Session) -> None:
    """Try every patch in one pass; the vendored tree is not touched."""
    from turbotool.series.check import check_series
    from turbotool.series.conflict import lines_of
    from turbotool.series.document import patch_check

    checked = check_series(session)
    for trial in checked.trials:
        session.out.result(f"{trial.state:<9} {trial.name}{f'  ({trial.detail})' if trial.detail else ''}")
        for line in lines_of(trial.files, " " * 12):
            session.out.result(line)
    session.out.result(f"{len(checked.trials)} patches tried")
    for problem in checked.problems:
        session.out.result(f"{problem.name}: {problem.message}")
    if error := checked.error():
        fail(error, session.out, patch_check(checked))
    session.out.document(patch_check(checked))


@patch.command()
@click.option("--relock", is_flag=True, help="Lock the series as it is on disk, after editing patches/ by hand.")
@click.option("--force", is_flag=True, help="Drop somebody's edits in the vendored tree.")
@session_options
def apply(relock: bool, force: bool, session: Session) -> None:
    """Bring the vendored tree to the locked series: one commit for the overlay, one for each patch."""
    from turbotool.series.apply import ensure_applied
    from turbotool.series.document import patch_apply

    done = ensure_applied(session, relock=relock, force=force)
    session.out.result(
        f"{session.layout.tree}: {done.patches} patches, tree {done.tree[:12]}"
        + (", already applied" if done.cached else "")
    )
    session.out.document(patch_apply(done, session.layout.tree))


@patch.command()
@click.option("--from", "source", type=click.Path(path_type=Path), help="Export a repair work tree instead.")
@session_options
def export(source: Path | None, session: Session) -> None:
    """Write the commits of the vendored tree back to patches/ and the lock, byte for byte what apply reads."""
    from turbotool.series.document import patch_export
    from turbotool.series.export import export as write

    done = write(session, source=source)
    state = "written" if done.changed else "nothing changed"
    session.out.result(f"{len(done.patches)} patches, {len(done.overlay)} files in the overlay: {state}")
    session.out.document(patch_export(done))


@patch.command("rehearse")
@click.option(
    "--onto",
    "refs",
    required=True,
    multiple=True,
    metavar="REF",
    help="A version, PACKAGE==VERSION, an archive, a git ref, or ADDRESS@REF.",
)
@click.option("--subdir", default="", help=SUBDIR)
@click.option("--report", type=click.Path(path_type=Path), help="Write what happened to a Markdown file.")
@session_options
def rehearse_(refs: tuple[str, ...], subdir: str, report: Path | None, session: Session) -> None:
    """Try the series on other upstreams: neither the lock nor the vendored tree is touched. --onto is repeatable."""
    import time

    from turbotool.pin.document import rehearsal_document
    from turbotool.pin.reference import parse_reference
    from turbotool.pin.rehearsal_page import page
    from turbotool.pin.rehearse import lines, rehearse
    from turbotool.system.files import writable_file, write_file
    from turbotool.system.process import display

    if report:
        writable_file(report)
    references = [parse_reference(session.layout, ref, subdir=subdir) for ref in refs]
    rehearsals = []
    for reference in references:
        done = rehearse(session, reference)
        for line in lines(done):
            session.out.result(line)
        session.out.say(f"{done.seconds:.1f} s{' with the upstream in the cache' if done.onto.cached else ''}")
        rehearsals.append(done)
    if report:
        words = [word for ref in refs for word in ("--onto", ref)] + ["--subdir", subdir] * bool(subdir)
        words += ["--report", report.as_posix()]
        command = f"turbotool patch rehearse {display(words)}"
        write_file(report, page(rehearsals, command, time.strftime("%Y-%m-%d")).encode())
    document = rehearsal_document(rehearsals)
    error = next((error for done in rehearsals if (error := done.error())), None)
    if error:
        fail(error, session.out, document)
    session.out.document(document)


@patch.command()
@click.argument("name")
@click.option("--why", default=OPEN, help="What the patch is for, in a sentence or a paragraph.")
@click.option("--reason", type=click.Choice(REASONS), default="feature", show_default=True)
@click.option("--upstream", default="none", show_default=True, help="Link to upstream's issue or pull request.")
@click.option("--drop-when", default=OPEN, help="The condition under which the patch can go.")
@click.option(
    "--needs", multiple=True, metavar="PATH", help="A file or folder of upstream that the patch is about. Repeatable."
)
@session_options
def new(
    name: str, why: str, reason: str, upstream: str, drop_when: str, needs: tuple[str, ...], session: Session
) -> None:
    """Make the edits in the vendored tree the last patch of the series. NAME is its name or its subject."""
    from turbotool.series.document import patch_new
    from turbotool.series.new import Message, new_patch, subject_of

    message = Message(subject_of(name), why, reason, upstream, drop_when, needs)
    made, done = new_patch(session, message)
    session.out.result(f"{session.layout.patches / made}: written; say in patches/README.md why it exists")
    if not message.complete:
        session.out.say(
            f"its message is open: git -C {session.layout.tree} commit --amend, then turbotool patch export"
        )
    session.out.document(patch_new(made, done, complete=message.complete))


@patch.command("lint")
@session_options
def lint_(session: Session) -> None:
    """Trailers, size, call sites only, white space, and the overlay's formatting by upstream's .clang-format."""
    import os

    from turbotool.series.document import patch_lint
    from turbotool.series.lint import lint

    linted = lint(session.layout, os.environ)
    for problem in linted.problems:
        session.out.result(f"{problem.name}: {problem.message}")
    for skipped in linted.skipped:
        session.out.say(f"not looked at: {skipped}")
    session.out.result(
        f"{linted.patches} patches, {linted.overlay} files in the overlay: {len(linted.problems)} problems"
    )
    if error := linted.error():
        fail(error, session.out, patch_lint(linted))
    session.out.document(patch_lint(linted))


@patch.command()
@session_options
def log(session: Session) -> None:
    """Why each patch exists: subject, reason, when it can go, size; with -v its whole message."""
    from turbotool.series.document import patch_log

    patches = series.load(session.layout)
    for entry in patches:
        session.out.result(f"{entry.name}  +{entry.added} -{entry.removed} in {len(entry.files)} files")
        session.out.result(f"    {entry.reason or 'no reason'}: {entry.subject}")
        session.out.result(f"    drop when: {entry.trailers.get('Drop-when', 'not said')}")
        for path in entry.needs:
            session.out.result(f"    needs: {path}")
        for line in entry.body.splitlines() if session.out.verbose else ():
            session.out.result(f"    | {line}")
    session.out.document(patch_log(patches))


for command in (repair.continue_, repair.skip, repair.abort):
    patch.add_command(command)
