"""Whose signature is taken: one workflow of one repository on GitHub, started by a pushed tag, on GitHub's machines."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from turbotool.errors import UsageMistake, WrongSigner

if TYPE_CHECKING:  # the command line imports this module to print its help
    from cryptography.x509 import Certificate

ISSUER = "https://token.actions.githubusercontent.com"
HOME = "https://github.com"
REPOSITORY = "turbotool/turbotool"
WORKFLOW = ".github/workflows/release.yml"
TAG = r"v[0-9][0-9A-Za-z.+-]{0,63}"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}")


@dataclass(frozen=True)
class Signer:
    """The repository, as `owner/name`, and its workflow; a policy of sigstore's, for a certificate that it trusts."""

    repository: str = REPOSITORY
    workflow: str = WORKFLOW

    @property
    def home(self) -> str:
        return f"{HOME}/{self.repository}"

    @property
    def identity(self) -> str:
        """As certificates have it, with any tag that names a version."""
        return f"{self.home}/{self.workflow}@refs/tags/v*"

    def verify(self, cert: Certificate) -> None:
        """Raise WrongSigner unless the certificate was given to this workflow, for a tag."""
        from sigstore.errors import VerificationError
        from sigstore.verify import policy

        tag_of(self, cert)
        claims: list[policy.VerificationPolicy] = [
            policy.OIDCIssuerV2(ISSUER),
            policy.OIDCSourceRepositoryURI(self.home),
            policy.OIDCBuildTrigger("push"),
            policy.OIDCRunnerEnvironment("github-hosted"),
        ]
        try:
            policy.AllOf(claims).verify(cert)
        except VerificationError as error:
            raise WrongSigner(f"the certificate is not one of {self.identity}: {error}", hint=_hint()) from error


def named_signer(repository: str) -> Signer:
    """The workflow of another repository. Raises UsageMistake unless it is an `owner/name`."""
    if not NAME.fullmatch(repository):
        raise UsageMistake(f"'{repository}' is no repository on GitHub", hint=f"such as --repository {REPOSITORY}")
    return Signer(repository)


def subject_of(cert: Certificate) -> str:
    """The one address that a certificate was given to; '' if it has none or several."""
    from cryptography import x509

    try:
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    found = names.get_values_for_type(x509.UniformResourceIdentifier)
    return found[0] if len(found) == len(list(names)) == 1 else ""


def tag_of(signer: Signer, cert: Certificate) -> str:
    """The tag for which the signer ran, such as `v1.2.0`. Raises WrongSigner if it was another one that ran."""
    subject = subject_of(cert)
    match = re.fullmatch(rf"{re.escape(signer.home)}/{re.escape(signer.workflow)}@refs/tags/({TAG})", subject)
    if match is None:
        who = subject or "somebody who is no workflow"
        raise WrongSigner(f"signed by {who!r} instead of {signer.identity}", hint=_hint())
    return match[1]


def _hint() -> str:
    return "get the archive from the release's own page, or, if you trust another repository: --repository OWNER/NAME"
