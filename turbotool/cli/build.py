"""`turbotool build`: from the lock to binaries."""

from __future__ import annotations

import os

import click

from turbotool.cli.options import build_options, session_options
from turbotool.system.session import Session


@click.command()
@build_options
@click.option("--portable", is_flag=True, help="Code for any CPU of this architecture instead of this very CPU.")
@click.option("--target", "targets", multiple=True, help="One more target of llama.cpp to build. Repeatable.")
@session_options
def build(
    backend: str,
    archs: tuple[str, ...],
    portable: bool,
    targets: tuple[str, ...],
    options: tuple[tuple[str, str], ...],
    jobs: int | None,
    session: Session,
) -> None:
    """Vendor and patch if needed, then compile. Does nothing, in about a second, when nothing changed."""
    from turbotool.build.backends import find_backend
    from turbotool.build.document import build_document
    from turbotool.build.host import Choices
    from turbotool.build.request import BuildRequest
    from turbotool.build.run import build_product

    request = BuildRequest(find_backend(backend), Choices(portable, archs), options, targets, jobs or 0)
    outcome = build_product(session, request, os.environ)
    session.out.result(str(outcome.bin_dir))
    session.out.document(build_document(outcome))
