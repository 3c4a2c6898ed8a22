"""`turbotool verify`: prove the built binaries with a real model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from turbotool.cli.options import fail, session_options, wrapper_option
from turbotool.system.session import Session

if TYPE_CHECKING:  # the command line imports this module to print its help
    from turbotool.verify.run import Proof

PATH = click.Path(path_type=Path)


@click.command()
@click.option("--backend", default="cpu", show_default=True, help="Which build to verify.")
@click.option("--bin-dir", type=PATH, help="Verify the binaries in this folder instead of building.")
@click.option(
    "--package", "archive", type=PATH, help="Unpack this archive of turbotool package and verify what it holds."
)
@wrapper_option
@click.option("--model", "model_path", type=PATH, help="A GGUF file  [default: the locked small model]")
@click.option("--corpus", "corpus_path", type=PATH, help="A UTF-8 text  [default: upstream's documentation]")
@click.option("--quick", is_flag=True, help="The subset that takes under a minute.")
@click.option("--check", "names", multiple=True, metavar="NAME", help="Run only this check; may be repeated.")
@click.option("--list", "list_only", is_flag=True, help="List the checks and stop.")
@click.option("--report", type=PATH, help="Write a JUnit XML report.")
@session_options
def verify(
    backend: str,
    bin_dir: Path | None,
    archive: Path | None,
    wrapper: tuple[str, ...],
    model_path: Path | None,
    corpus_path: Path | None,
    quick: bool,
    names: tuple[str, ...],
    list_only: bool,
    report: Path | None,
    session: Session,
) -> None:
    """Prove the built binaries with a real model: named checks, each with a measured value and its bound."""
    from turbotool.release.unpacked import require_wrapper, unpacked
    from turbotool.system.files import writable_file
    from turbotool.verify.run import prover, run

    if list_only:
        _list(session)
        return
    if archive and bin_dir:
        raise click.UsageError("--package and --bin-dir exclude each other")
    require_wrapper(wrapper, "install it, or correct --wrapper")
    if report:
        writable_file(report)
    named = {"model": model_path, "corpus": corpus_path}
    if archive:
        prove = prover(session, **named, checks=names, quick=quick)
        with unpacked(archive.absolute(), wrapper) as binaries:
            proof = prove(binaries)
    else:
        proof = run(session, backend=backend, bin_dir=bin_dir, **named, checks=names, quick=quick, wrapper=wrapper)
    _publish(proof, report, session)


def _list(session: Session) -> None:
    from turbotool.verify.document import checks_document
    from turbotool.verify.registry import CHECKS

    for spec in CHECKS:
        session.out.result(f"{spec.name:24} {'quick' if spec.quick else '     '}  {spec.about}")
    session.out.document(checks_document(CHECKS))


def _publish(proof: Proof, report: Path | None, session: Session) -> None:
    """Print the table, write the report and the document; the command fails if a check did."""
    from turbotool.verify.document import verify_document
    from turbotool.verify.junit import write_report
    from turbotool.verify.verification import summary, table

    found = proof.verification
    if report:
        write_report(report, found.checks, proof.facts)
    session.out.result(table(found))
    if error := proof.error():
        fail(error, session.out, verify_document(proof))
    session.out.result(summary(found))
    session.out.document(verify_document(proof))
