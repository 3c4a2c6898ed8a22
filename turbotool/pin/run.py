"""One entry that moves the pin to another upstream."""

from __future__ import annotations

from turbotool.pin.bump import Bumped, bump
from turbotool.pin.reference import parse_reference
from turbotool.system.session import Session


def run(session: Session, ref: str, *, subdir: str = "", backend: str | None = "cpu") -> Bumped:
    """Merge the series onto the upstream that `ref` names, build it, prove it, and only then move the pin.

    `ref` is a version, an archive, a git ref, or ADDRESS@REF; `subdir` the folder of an archive that holds the sources.
    `backend` is the one that proves the result, None for no proof. Raises SourceError for a ref that names nothing,
    PatchConflict with its report when a patch needs repair, what building raises, and VerificationFailed; the pin then
    stays as it is, and `bump.go_on` and `bump.give_up` are the ways on.

    >>> run(session, "0.3.36").proven
    True
    """
    return bump(session, parse_reference(session.layout, ref, subdir=subdir), backend=backend)
