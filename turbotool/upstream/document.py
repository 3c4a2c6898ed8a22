"""What `turbotool vendor --json` prints."""

from __future__ import annotations

from dataclasses import dataclass

from turbotool.system.documents import document
from turbotool.upstream.tree import Vendored


@document("vendor")
@dataclass(frozen=True)
class VendorDocument:
    """The vendored tree: upstream's commit, its source, where it is, its base commit and git tree id.

    `commit` and `tag` are '' where the source does not tell them; `known_as` is the tag, else commit, else tree.
    """

    ok: bool
    commit: str
    source: str
    path: str
    base: str
    tree: str
    cached: bool
    tag: str
    known_as: str


def vendor_document(done: Vendored) -> VendorDocument:
    up = done.upstream
    path = str(done.path.absolute())
    return VendorDocument(True, up.commit, up.source, path, done.base, up.tree, done.cached, up.tag, up.known_as)
