"""What `turbotool package --json` prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from msgspec import UNSET, UnsetType

from turbotool.release.run import Released
from turbotool.release.sharedlibs import Needs
from turbotool.release.wheel import Wheel
from turbotool.system.documents import ErrorFields, document


@dataclass(frozen=True)
class NeedsFields:
    """What an archive expects of a machine; on Linux the lowest glibc and the manylinux level."""

    system_libraries: tuple[str, ...]
    driver_libraries: tuple[str, ...]
    glibc: str | UnsetType = UNSET
    manylinux: str | UnsetType = UNSET


@document("package")
@dataclass(frozen=True)
class PackageDocument:
    """An archive in its place, its size in bytes, and the checks that proved it (as in `verify`; null without proof).

    `format` is `archive`, or `wheel`, whose file is `archive` then. Where the proof failed there is no archive, and
    nothing but `ok`, `checks` and `error`. `seconds` is wall time.
    """

    ok: bool
    checks: tuple[dict[str, Any], ...] | None
    archive: str | UnsetType = UNSET
    format: str | UnsetType = UNSET
    sha256: str | UnsetType = UNSET
    bytes: int | UnsetType = UNSET
    platform: str | UnsetType = UNSET
    backend: str | UnsetType = UNSET
    tree: str | UnsetType = UNSET
    needs: NeedsFields | UnsetType = UNSET
    verified: bool | UnsetType = UNSET
    signature: str | UnsetType | None = UNSET
    seconds: float | UnsetType = UNSET
    error: ErrorFields | UnsetType = UNSET


def package_document(made: Released, checks: tuple[dict[str, Any], ...] | None) -> PackageDocument:
    return PackageDocument(
        ok=True,
        checks=checks,
        archive=str(made.archive),
        format="wheel" if isinstance(made.package, Wheel) else "archive",
        sha256=made.sha256,
        bytes=made.archive.stat().st_size,
        platform=made.package.platform.name,
        backend=made.package.backend,
        tree=made.package.tree,
        needs=needs_fields(made.package.needs),
        verified=made.verified,
        signature=str(made.signature) if made.signature else None,
        seconds=round(made.seconds, 1),
    )


def needs_fields(needs: Needs) -> NeedsFields:
    """`Needs` as documents have it."""
    named = NeedsFields(needs.system, needs.drivers)
    return NeedsFields(needs.system, needs.drivers, needs.glibc, needs.level) if needs.glibc else named
