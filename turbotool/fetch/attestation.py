"""The attestation of an archive: SLSA provenance in a Sigstore bundle, as GitHub's attest-build-provenance writes it.

Sigstore's own library checks the bundle; what its signed statement says of archive, repository, tag and commit is
compared here, with the archive and with the certificate.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import DecodeError, Struct
from msgspec.json import Decoder

from turbotool.errors import AttestationError, FetchError, HashMismatch, TurbotoolError, UsageMistake, first_line
from turbotool.fetch.signer import Signer, tag_of

if TYPE_CHECKING:  # the command line imports this module to print its help
    from cryptography.x509 import Certificate
    from sigstore.models import Bundle
    from sigstore.verify import Verifier

PAYLOAD = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
SHA256 = "sha256"
HINT = "get archive and attestation again, from the release's own page"


class Named(Struct, frozen=True):
    """A subject of a statement."""

    name: str
    digest: Mapping[str, str]


class Workflow(Struct, frozen=True):
    """Which workflow ran."""

    ref: str
    repository: str
    path: str


class Parameters(Struct, frozen=True):
    """What it was started with."""

    workflow: Workflow


class Source(Struct, frozen=True):
    """What it was built from; `digest` has the commit."""

    uri: str
    digest: Mapping[str, str] = {}


class Definition(Struct, frozen=True, rename="camel"):
    """How something was built."""

    external_parameters: Parameters
    resolved_dependencies: tuple[Source, ...]


class Builder(Struct, frozen=True):
    """Who built it."""

    id: str


class Details(Struct, frozen=True):
    """The one run that built it."""

    builder: Builder


class Predicate(Struct, frozen=True, rename="camel"):
    """SLSA provenance, as far as it is compared."""

    build_definition: Definition
    run_details: Details


class Statement(Struct, frozen=True, rename={"kind": "_type", "predicate_type": "predicateType"}):
    """An in-toto statement."""

    kind: str
    subject: tuple[Named, ...]
    predicate_type: str
    predicate: Predicate


@dataclass(frozen=True)
class Provenance:
    """Where an archive comes from, signed: repository, workflow, tag, commit; and its entry in the transparency log."""

    repository: str
    workflow: str
    tag: str
    commit: str
    log_index: int


def trusted(root: Path | None, *, offline: bool) -> Verifier:
    """Sigstore's verifier with the trust root of a file, or with that of the public Sigstore.

    `offline` takes the public one as it is known here instead of asking for a newer one. Raises UsageMistake for a file
    that is no trust root, FetchError where the public one cannot be had.
    """
    from sigstore.models import TrustedRoot
    from sigstore.verify import Verifier

    if root is None:
        try:
            return Verifier.production(offline=offline)
        except Exception as error:  # of the network, of TUF and of what it parses
            raise FetchError(
                f"cannot get Sigstore's trust root: {first_line(str(error))}",
                hint="--offline takes the one that is known here, --trust-root FILE one of your own",
            ) from error
    try:
        return Verifier(trusted_root=TrustedRoot.from_file(str(root)))
    except Exception as error:  # whatever its parsers raise
        raise UsageMistake(
            f"{root} is no trust root: {first_line(str(error))}", hint="name a trusted_root.json of Sigstore"
        ) from error


def check(verifier: Verifier, signer: Signer, attestation: Path, archive: str, digest: str) -> Provenance:
    """What the attestation says of an archive of that name and sha256.

    Raises AttestationError if the bundle does not hold, WrongSigner if another one signed it, HashMismatch if it is
    about an archive of other bytes.
    """
    try:
        data = attestation.read_bytes()
        bundle, statement = _signed(verifier, signer, data)
        tag = tag_of(signer, bundle.signing_certificate)
        commit = _same(statement, signer, tag, bundle.signing_certificate)
        entry = int(json.loads(data)["verificationMaterial"]["tlogEntries"][0]["logIndex"])
    except TurbotoolError:
        raise
    except Exception as error:  # a hostile bundle may make its parsers raise anything
        raise AttestationError(
            f"{attestation.name} does not hold: {first_line(str(error)) or type(error).__name__}", hint=HINT
        ) from error
    _about(statement, archive, digest, attestation.name)
    return Provenance(signer.repository, signer.workflow, tag, commit, entry)


def _signed(verifier: Verifier, signer: Signer, data: bytes) -> tuple[Bundle, Statement]:
    """A bundle whose signature, certificate and log entry hold, and its statement."""
    from sigstore.models import Bundle

    bundle = Bundle.from_json(data)
    kind, payload = verifier.verify_dsse(bundle, signer)
    if kind != PAYLOAD:
        raise AttestationError(f"the attestation holds {kind!r} instead of an in-toto statement", hint=HINT)
    try:
        statement = Decoder(Statement).decode(payload)
    except DecodeError as error:
        raise AttestationError(f"the attestation holds no SLSA provenance: {error}", hint=HINT) from error
    if (statement.kind, statement.predicate_type) != (STATEMENT, PROVENANCE):
        raise AttestationError(f"the attestation is a {statement.predicate_type!r} instead of {PROVENANCE}", hint=HINT)
    return bundle, statement


def _same(statement: Statement, signer: Signer, tag: str, cert: Certificate) -> str:
    """The commit that was built. Raises AttestationError unless statement and certificate tell of the same run."""
    from sigstore.errors import VerificationError
    from sigstore.verify import policy

    predicate, ref = statement.predicate, f"refs/tags/{tag}"
    identity = f"{signer.home}/{signer.workflow}@{ref}"
    told = predicate.build_definition.external_parameters.workflow
    source = f"git+{signer.home}@{ref}"
    commits = {
        one.digest.get("gitCommit", "") for one in predicate.build_definition.resolved_dependencies if one.uri == source
    }
    if told != Workflow(ref, signer.home, signer.workflow) or predicate.run_details.builder.id != identity:
        raise AttestationError(f"the provenance tells of another run than its certificate, {identity}", hint=HINT)
    if len(commits) != 1:
        raise AttestationError(f"the provenance names {len(commits)} commits of {source}", hint=HINT)
    (commit,) = commits
    try:
        policy.AllOf(
            [
                policy.OIDCSourceRepositoryRef(ref),
                policy.OIDCSourceRepositoryDigest(commit),
                policy.OIDCBuildSignerURI(identity),
            ]
        ).verify(cert)
    except VerificationError as error:
        raise AttestationError(f"provenance and certificate differ: {error}", hint=HINT) from error
    return commit


def _about(statement: Statement, archive: str, digest: str, where: str) -> None:
    """Raise HashMismatch unless the statement names the archive with this sha256."""
    attested = [one.digest.get(SHA256, "nothing") for one in statement.subject if one.name == archive]
    if digest not in attested:
        says = f"attests {attested[0]}" if attested else "does not name it"
        raise HashMismatch(f"{archive} has sha256 {digest}, {where} {says}", hint=HINT)
