"""What `turbotool fetch --json` prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from msgspec import UNSET, UnsetType

from turbotool.fetch.run import NOT_CHECKED, Held, Release
from turbotool.system.documents import ErrorFields, document


@document("fetch")
@dataclass(frozen=True)
class FetchDocument:
    """A release in its place, what was checked of it and what was not, and the checks that proved it (as in `verify`).

    `held` is in the order of the checks, `checks` is null without proof. Where the proof failed there is nothing but
    `ok`, `checks` and `error`. `bytes` is the size of the archive, `seconds` wall time.
    """

    ok: bool
    checks: tuple[dict[str, Any], ...] | None
    archive: str | UnsetType = UNSET
    sha256: str | UnsetType = UNSET
    bytes: int | UnsetType = UNSET
    bin_dir: str | UnsetType = UNSET
    platform: str | UnsetType = UNSET
    backend: str | UnsetType = UNSET
    tree: str | UnsetType = UNSET
    tag: str | UnsetType = UNSET
    commit: str | UnsetType = UNSET
    repository: str | UnsetType = UNSET
    trust_root: str | UnsetType = UNSET
    held: tuple[Held, ...] | UnsetType = UNSET
    not_checked: tuple[str, ...] | UnsetType = UNSET
    verified: bool | UnsetType = UNSET
    seconds: float | UnsetType = UNSET
    error: ErrorFields | UnsetType = UNSET


def fetch_document(release: Release, checks: tuple[dict[str, Any], ...] | None) -> FetchDocument:
    return FetchDocument(
        ok=True,
        checks=checks,
        archive=release.record.archive,
        sha256=release.record.sha256,
        bytes=release.bytes,
        bin_dir=str(release.binaries.bin_dir),
        platform=release.target.platform.name,
        backend=release.target.backend,
        tree=release.record.tree,
        tag=release.record.tag,
        commit=release.record.commit,
        repository=release.record.repository,
        trust_root=release.trust_root,
        held=release.held,
        not_checked=NOT_CHECKED,
        verified=release.verified,
        seconds=round(release.seconds, 1),
    )
