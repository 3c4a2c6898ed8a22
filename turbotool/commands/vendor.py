"""`turbotool vendor`."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import click

from turbotool.cli import output_options
from turbotool.layout import Layout, find_layout
from turbotool.lock import SOURCES, Upstream, read_lock
from turbotool.output import Output
from turbotool.vendor import ensure_vendored


@click.command()
@click.option("--source", type=click.Choice(SOURCES), help="Take upstream from here instead of from the locked source.")
@click.option("--url", default="", help="git: address of the repository.")
@click.option("--ref", default="", help="git: branch, tag or full commit id.")
@click.option("--path", type=click.Path(path_type=Path), help="archive, dir: the file or folder.")
@click.option("--subdir", default="", help="archive: the folder inside it that holds the sources.")
@click.option("--relock", is_flag=True, help="Write what was found to vendor/lock.toml instead of checking it.")
@click.option("--force", is_flag=True, help="Drop somebody's edits in the vendored tree.")
@output_options
def vendor(
    source: str | None, url: str, ref: str, path: Path | None, subdir: str, relock: bool, force: bool, out: Output
) -> None:
    """Materialise the locked upstream llama.cpp as a git work tree at vendor/llama.cpp."""
    layout = find_layout()
    upstream = _chosen(layout, source, url, ref, subdir) if source else None
    if relock and upstream is None:
        raise click.UsageError("--relock needs --source")
    if upstream and upstream.source in ("archive", "dir") and path is None:
        raise click.UsageError(f"--source {upstream.source} needs --path")
    done = ensure_vendored(layout, out, upstream=upstream, path=path, relock=relock, force=force)
    out.say(
        f"{done.path}: llama.cpp {done.commit[:9] or done.tree[:9]} from {done.source}"
        + (", already there" if done.cached else "")
    )
    out.document({"ok": True, **asdict(done), "path": str(done.path.absolute())})


def _chosen(layout: Layout, source: str, url: str, ref: str, subdir: str) -> Upstream:
    locked = read_lock(layout).upstream
    if source == "pypi":
        if locked.source != "pypi":
            raise click.UsageError("the lock names no PyPI release")
        return locked
    return replace(Upstream(source, ""), url=url, ref=ref, subdir=subdir)
