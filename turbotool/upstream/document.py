"""What `turbotool vendor --json` prints."""

from __future__ import annotations

from dataclasses import dataclass

from turbotool.system.documents import document
from turbotool.upstream.tree import Vendored


@document("vendor")
@dataclass(frozen=True)
class VendorDocument:
    """The vendored tree: upstream's commit, its source, where it is, its base commit and git tree id."""

    ok: bool
    commit: str
    source: str
    path: str
    base: str
    tree: str
    cached: bool


def vendor_document(done: Vendored) -> VendorDocument:
    return VendorDocument(True, done.commit, done.source, str(done.path.absolute()), done.base, done.tree, done.cached)
