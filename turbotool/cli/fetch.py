"""`turbotool fetch`: a release that somebody else built, checked before it is unpacked, and proven here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from turbotool.cli.options import fail, session_options
from turbotool.system.session import Session

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("archive")
@click.option("--attestation", help="Its address or file  [default: that of the archive, with .provenance.json]")
@click.option("--repository", help="Whose release is taken  [default: turbotool/turbotool]")
@click.option("--trust-root", type=PATH, help="A trusted_root.json  [default: that of the public Sigstore]")
@click.option("--offline", is_flag=True, help="Take the public Sigstore's trust root as it is known here.")
@click.option("--allow-older", "older", is_flag=True, help="Take a release that is older than the one here.")
@click.option("--model", "model_path", type=PATH, help="A GGUF file to verify with  [default: the locked small model]")
@click.option("--corpus", "corpus_path", type=PATH, help="A UTF-8 text  [default: upstream's documentation]")
@click.option("--check", "names", multiple=True, metavar="NAME", help="Run only this check; may be repeated.")
@click.option("--no-verify", is_flag=True, help="Do not run what is in the archive.")
@session_options
def fetch(
    archive: str,
    attestation: str | None,
    repository: str | None,
    trust_root: Path | None,
    offline: bool,
    older: bool,
    model_path: Path | None,
    corpus_path: Path | None,
    names: tuple[str, ...],
    no_verify: bool,
    session: Session,
) -> None:
    """Get a release archive from an https address or a file, check who built it from what, and run verify --quick.

    Nothing of it is unpacked before signature, certificate, log entry and attestation hold.
    """
    from turbotool.errors import VerificationFailed
    from turbotool.fetch.document import FetchDocument, fetch_document
    from turbotool.fetch.run import require, run
    from turbotool.fetch.signer import REPOSITORY, named_signer
    from turbotool.fetch.text import text
    from turbotool.programs.binaries import Binaries
    from turbotool.system.documents import plain
    from turbotool.upstream.tree import ensure_vendored
    from turbotool.verify.document import rounded
    from turbotool.verify.run import Proof, prover
    from turbotool.verify.verification import table

    require()
    signer = named_signer(repository or REPOSITORY)
    checks: list[dict[str, Any]] = []
    proven = None if no_verify else prover(session, model=model_path, corpus=corpus_path, checks=names)

    def prove(binaries: Binaries) -> Proof:
        assert proven  # noqa: S101 (handed on only then)
        if corpus_path is None and not session.layout.tree.is_dir():
            ensure_vendored(session)  # whose documentation is the default text
        proof = proven(binaries)
        session.out.result(table(proof.verification))
        checks.extend(plain(rounded(proof.verification.checks)))
        return proof

    try:
        release = run(
            session,
            archive,
            prove=prove if proven else None,
            attestation=attestation,
            signer=signer,
            trust_root=trust_root,
            offline=offline,
            older=older,
        )
    except VerificationFailed as error:
        fail(error, session.out, FetchDocument(False, tuple(checks)))
    session.out.result(text(release))
    session.out.document(fetch_document(release, tuple(checks) if release.verified else None))
