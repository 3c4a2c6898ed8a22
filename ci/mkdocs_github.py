"""A hook of mkdocs: pages are written to be read on GitHub, and the site shows the same.

A link that leaves docs/ becomes one to the repository. GitHub wants a backslash before a pipe in the code of a table.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

LINK = re.compile(r"(\]\()([^)\s:#]+)((?:#[^)\s]*)?\))")  # neither an address nor a place on the same page
ROW = re.compile(r"^ *\|.*\|$", re.MULTILINE)
CODE = re.compile(r"`[^`]+`")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: object) -> str:
    """The page's text as mkdocs renders it."""
    text = linked(markdown, page.file.src_uri, f"{config.repo_url.rstrip('/')}/blob/main/")
    return ROW.sub(lambda row: CODE.sub(lambda code: code[0].replace(r"\|", "|"), row[0]), text)


def linked(markdown: str, page: str, repository: str) -> str:
    """`markdown` of `page`, a path below docs/, with links out of docs/ as addresses below `repository`."""

    def out(match: re.Match[str]) -> str:
        opening, target, closing = match.groups()
        place = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), target))
        return match[0] if place.startswith("docs/") else f"{opening}{repository}{place}{closing}"

    return LINK.sub(out, markdown)
