"""A hook of mkdocs: links that leave docs/ become links to the repository, so that they work on both sites."""

from __future__ import annotations

import posixpath
import re
from typing import Any

LINK = re.compile(r"(\]\()([^)\s:#]+)((?:#[^)\s]*)?\))")  # neither an address nor a place on the same page


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: object) -> str:
    """The page's text as mkdocs renders it."""
    return rewritten(markdown, page.file.src_uri, f"{config.repo_url.rstrip('/')}/blob/main/")


def rewritten(markdown: str, page: str, repository: str) -> str:
    """`markdown` of `page`, a path below docs/, with links out of docs/ as addresses below `repository`."""

    def out(match: re.Match[str]) -> str:
        opening, target, closing = match.groups()
        place = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), target))
        return match[0] if place.startswith("docs/") else f"{opening}{repository}{place}{closing}"

    return LINK.sub(out, markdown)
