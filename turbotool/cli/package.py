"""`turbotool package`: a release archive or a wheel, proven as a user has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from turbotool.cli.options import build_options, fail, session_options, wrapper_option
from turbotool.system.session import Session


@click.command()
@build_options
@click.option(
    "--format",
    "form",
    type=click.Choice(["archive", "wheel"]),
    default="archive",
    show_default=True,
    help="The programs in an archive, or the libraries in a wheel for llama-cpp-python.",
)
@click.option("--platform", "platform_name", help="Such as linux-arm64, cross-compiled  [default: this one]")
@click.option("--max-glibc", help="The newest glibc that may be needed  [default: 2.35, that of Ubuntu 22.04]")
@click.option("--out", "folder", type=click.Path(path_type=Path), help="Where to write  [default: build/packages]")
@click.option("--model", "model_path", type=click.Path(path_type=Path), help="A GGUF file to verify with.")
@wrapper_option
@click.option("--check", "names", multiple=True, metavar="NAME", help="Run only this check; may be repeated.")
@click.option("--no-verify", is_flag=True, help="Do not run what was packed.")
@click.option("--sign", "signed", is_flag=True, help="Sign what was made with sigstore.")
@session_options
def package(
    backend: str,
    form: str,
    platform_name: str | None,
    archs: tuple[str, ...],
    options: tuple[tuple[str, str], ...],
    jobs: int | None,
    max_glibc: str | None,
    folder: Path | None,
    model_path: Path | None,
    wrapper: tuple[str, ...],
    names: tuple[str, ...],
    no_verify: bool,
    signed: bool,
    session: Session,
) -> None:
    """Build for any CPU, pack binaries, licences, records and sums, and run verify --quick on the unpacked archive.

    A wheel is also installed in a new environment beside llama-cpp-python, which must fit its libraries.
    """
    from turbotool.bindings.carried import CarriedPackage
    from turbotool.errors import VerificationFailed
    from turbotool.programs.binaries import Binaries
    from turbotool.release.document import PackageDocument, package_document
    from turbotool.release.package import MAX_GLIBC
    from turbotool.release.run import require, run
    from turbotool.system.documents import plain
    from turbotool.verify.document import rounded
    from turbotool.verify.run import Proof, prover
    from turbotool.verify.verification import table

    require(platform_name, wrapper, proven=not no_verify, sign=signed)
    checks: list[dict[str, Any]] = []
    proven = None if no_verify else prover(session, model=model_path, checks=names)

    def prove(binaries: Binaries) -> Proof:
        assert proven  # noqa: S101 (handed on only then)
        proof = proven(binaries)
        session.out.result(table(proof.verification))
        checks.extend(plain(rounded(proof.verification.checks)))
        return proof

    try:
        made = run(
            session,
            prove=prove if proven else None,
            backend=backend,
            platform=platform_name,
            archs=archs,
            options=options,
            jobs=jobs or 0,
            max_glibc=max_glibc or MAX_GLIBC,
            folder=folder,
            wrapper=wrapper,
            sign=signed,
            carried=CarriedPackage() if form == "wheel" else None,
        )
    except VerificationFailed as error:
        fail(error, session.out, PackageDocument(False, tuple(checks)))
    session.out.result(f"{made.archive}\nsha256 {made.sha256}{'' if made.verified else ' (not verified)'}")
    session.out.document(package_document(made, tuple(checks) if made.verified else None))
