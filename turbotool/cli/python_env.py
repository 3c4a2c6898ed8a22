"""`turbotool python-env`: a Python environment whose llama-cpp-python runs on the libraries of a build."""

from __future__ import annotations

from pathlib import Path

import click

from turbotool.cli.options import session_options
from turbotool.system.session import Session

PATH = click.Path(path_type=Path)


@click.command("python-env")
@click.argument("folder", metavar="[FOLDER]", required=False, type=PATH)
@click.option("--backend", default="cpu", show_default=True, help="Which build: cpu, cuda, metal or vulkan.")
@click.option("--bin-dir", type=PATH, help="Take the libraries in this folder instead of building.")
@click.option("--replace", is_flag=True, help="Install the known llama-cpp-python where another one is.")
@session_options
def python_env(folder: Path | None, backend: str, bin_dir: Path | None, replace: bool, session: Session) -> None:
    """Make or extend the virtual environment FOLDER (build/python-env): llama-cpp-python with turbo caches.

    It is installed without compiling anything, and loads the libraries of the build. Whenever it is imported, it is
    compared with their llama.h: what does not fit is refused instead of crashing.
    """
    from turbotool.bindings.document import python_env_document
    from turbotool.bindings.run import run
    from turbotool.bindings.text import text

    wired = run(session, folder, backend=backend, bin_dir=bin_dir, replace=replace)
    session.out.result(text(wired))
    session.out.document(python_env_document(wired))
