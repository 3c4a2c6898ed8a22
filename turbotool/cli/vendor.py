"""`turbotool vendor`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
from click.core import ParameterSource

from turbotool.cli.options import SUBDIR, fail, proof_options, session_options
from turbotool.cli.repair import publish
from turbotool.layout import Layout
from turbotool.system.session import Session
from turbotool.upstream.lock import SOURCES, Upstream, read_lock
from turbotool.upstream.tree import ensure_vendored


@click.group(invoke_without_command=True)
@click.option("--source", type=click.Choice(SOURCES), help="Take upstream from here instead of from the locked source.")
@click.option("--url", default="", help="git: address of the repository.")
@click.option("--ref", default="", help="git: branch, tag or full commit id. pypi: PACKAGE==VERSION, or a version.")
@click.option("--path", type=click.Path(path_type=Path), help="archive, dir: the file or folder.")
@click.option("--subdir", default="", help="archive, pypi: the folder inside it that holds the sources.")
@click.option("--relock", is_flag=True, help="Write what was found to vendor/lock.toml instead of checking it.")
@click.option("--force", is_flag=True, help="Drop somebody's edits in the vendored tree.")
@session_options
@click.pass_context
def vendor(
    ctx: click.Context,
    source: str | None,
    url: str,
    ref: str,
    path: Path | None,
    subdir: str,
    relock: bool,
    force: bool,
    session: Session,
) -> None:
    """Materialise the locked upstream llama.cpp as a git work tree at vendor/llama.cpp.

    Or move the pin (bump), or compare it with upstream's own repository (check).
    """
    if ctx.invoked_subcommand:
        given = [name for name in ctx.params if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT]
        if given:
            raise click.UsageError(f"options go behind {ctx.invoked_subcommand}")
        return
    from turbotool.upstream.document import vendor_document

    upstream = _chosen(session.layout, source, url, ref, subdir) if source else None
    if relock and upstream is None:
        raise click.UsageError("--relock needs --source")
    if upstream and upstream.source in ("archive", "dir") and path is None:
        raise click.UsageError(f"--source {upstream.source} needs --path")
    done = ensure_vendored(session, upstream=upstream, path=path, relock=relock, force=force)
    session.out.result(
        f"{done.path}: llama.cpp {done.upstream.short} from {done.upstream.source}"
        + (", already there" if done.cached else "")
    )
    session.out.document(vendor_document(done))


def _chosen(layout: Layout, source: str, url: str, ref: str, subdir: str) -> Upstream:
    locked = read_lock(layout).upstream
    if source == "pypi" and ref:
        return _release(layout, ref, subdir)
    if source == "pypi":
        if locked.source != "pypi":
            raise click.UsageError("the lock names no PyPI release: --ref PACKAGE==VERSION")
        return locked
    return replace(Upstream(source, ""), url=url, ref=ref, subdir=subdir)


def _release(layout: Layout, ref: str, subdir: str) -> Upstream:
    from turbotool.pin.reference import parse_reference

    found = parse_reference(layout, ref, subdir=subdir).upstream
    if found.source != "pypi":
        raise click.UsageError(f"'{ref}' is no release: --ref PACKAGE==VERSION")
    return found


@vendor.command("bump")
@click.argument("ref")
@click.option("--subdir", default="", help=SUBDIR)
@proof_options
@session_options
def bump_(ref: str, subdir: str, backend: str | None, no_verify: bool, session: Session) -> None:
    """Move the pin to REF: a version, PACKAGE==VERSION, an archive, a git ref, or ADDRESS@REF.

    The series is merged onto it, built and verified; only then do lock, patches and vendored tree change.
    """
    from turbotool.pin.run import run

    publish(run(session, ref, subdir=subdir, backend=None if no_verify else backend or "cpu"), session)


@vendor.command()
@click.option("--url", default="", help="Upstream's own repository. Default: the locked one, else llama.cpp's.")
@session_options
def check(url: str, session: Session) -> None:
    """Compare every pinned file with upstream's own repository: its bytes by git's id, and its mode.

    A file that upstream has otherwise or not at all is an error; what a package left out is listed. Where there is no
    network nothing was checked, and that is an error of its own.
    """
    from turbotool.pin.document import origin_document
    from turbotool.pin.origin import check_origin, lines
    from turbotool.upstream.tree import LISTED

    found = check_origin(session, url)
    for line in lines(found, shown=len(found.lacking) if session.out.verbose else LISTED):
        session.out.result(line)
    if error := found.error():
        fail(error, session.out, origin_document(found))
    session.out.document(origin_document(found))
