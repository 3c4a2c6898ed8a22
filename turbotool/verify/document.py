"""What `turbotool verify --json` prints."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from msgspec import UNSET, UnsetType

from turbotool.system.documents import ErrorFields, document
from turbotool.verify.check import Check, Spec
from turbotool.verify.run import Proof


@document("verify")
@dataclass(frozen=True)
class VerifyDocument:
    """A verification: what was proven with what, and each check with its measured value and its bound; seconds of wall
    time.
    """

    ok: bool
    backend: str
    bin_dir: str
    tree: str
    model: str
    corpus: str
    log: str
    quick: bool
    seconds: float
    checks: tuple[Check, ...]
    error: ErrorFields | UnsetType = UNSET


@dataclass(frozen=True)
class SpecFields:
    """A check that there is; `quick` says whether --quick runs it."""

    name: str
    quick: bool
    about: str


@document("checks")
@dataclass(frozen=True)
class ChecksDocument:
    """Every check, in the order in which they run."""

    ok: bool
    checks: tuple[SpecFields, ...]


def verify_document(proof: Proof) -> VerifyDocument:
    found, binaries = proof.verification, proof.binaries
    return VerifyDocument(
        ok=proof.ok,
        backend=binaries.backend,
        bin_dir=str(binaries.bin_dir),
        tree=binaries.tree,
        model=str(proof.model.path),
        corpus=str(proof.text),
        log=str(proof.log),
        quick=proof.quick,
        seconds=round(found.seconds, 1),
        checks=rounded(found.checks),
    )


def rounded(checks: Iterable[Check]) -> tuple[Check, ...]:
    """The checks with as many digits of their time as mean anything."""
    return tuple(replace(check, seconds=round(check.seconds, 2)) for check in checks)


def checks_document(specs: Iterable[Spec]) -> ChecksDocument:
    return ChecksDocument(True, tuple(SpecFields(spec.name, spec.quick, spec.about) for spec in specs))
