"""The text that perplexity is measured on: by default the prose of the vendored upstream's own documentation."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from turbotool.errors import CorpusError
from turbotool.system.files import out_of_space

if TYPE_CHECKING:  # the command line imports this module to print its help
    from markdown_it.token import Token

SHORTEST_PROSE = 40  # characters of a paragraph; shorter ones are labels and link lists
MIN_CHARACTERS = 4096  # less cannot fill two chunks of 512 tokens
ALERTS = frozenset(f"[!{kind}]" for kind in ("NOTE", "TIP", "IMPORTANT", "WARNING", "CAUTION"))  # GitHub's
BARE_LINK = re.compile(r"https?://[^\s)]+")  # which CommonMark takes for text
BOXES = ("[ ] ", "[x] ", "[X] ")  # of a task list


def prose(markdown: str) -> str:
    """The paragraphs of a Markdown text, those of lists and quotations included, as plain text.

    Code blocks, tables, HTML, images, headings and bare links are left out; code in a paragraph stays. Markdown is
    CommonMark with GitHub's tables and strikethrough. What is nested deeper than 20 levels is left out too.
    """
    from markdown_it import MarkdownIt

    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)
    paragraphs = (_plain(token.children or []) for before, token in pairwise(tokens) if before.type == "paragraph_open")
    return "\n\n".join(paragraph for paragraph in paragraphs if len(paragraph) >= SHORTEST_PROSE)


def _plain(inline: Iterable[Token]) -> str:
    parts = []
    bare = False  # inside <https://...>
    for token in inline:
        if token.type in ("link_open", "link_close"):
            bare = token.type == "link_open" and token.info == "auto"
        elif token.type in ("softbreak", "hardbreak") or token.content.startswith("<br"):
            parts.append(" ")
        elif token.type in ("text", "code_inline") and not bare and token.content.strip() not in ALERTS:
            parts.append(token.content)
    text = "".join(parts)
    for box in BOXES:
        text = text.removeprefix(box)
    return " ".join(BARE_LINK.sub("", text).split())


def documentation(tree: Path) -> list[Path]:
    """The documentation files of a llama.cpp tree, in an order that depends on their names alone."""
    patterns = ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "tools/*/*.md", "examples/*/README.md")
    found = {path for pattern in patterns for path in tree.glob(pattern) if path.is_file()}
    return sorted(found, key=lambda path: path.relative_to(tree).as_posix())


def default_corpus(tree: Path, folder: Path) -> Path:
    """Write the prose of the tree's documentation to `folder`, named by its content, and return the file.

    Raises CorpusError if the tree is not there or holds too little prose.
    """
    texts = [prose(path.read_text(encoding="utf-8", errors="replace")) for path in documentation(tree)]
    text = "\n\n".join(part for part in texts if part) + "\n"
    if len(text) < MIN_CHARACTERS:
        what = f"{tree} holds {len(text)} characters of documentation" if texts else f"there is no llama.cpp in {tree}"
        raise CorpusError(
            f"{what}, and its documentation is the default text",
            hint="run `turbotool vendor`, or name a text with --corpus FILE",
        )
    data = text.encode()
    target = folder / f"corpus-{hashlib.sha256(data).hexdigest()[:16]}.txt"
    if not (target.is_file() and target.read_bytes() == data):
        _write_atomically(target, data)
    return target


def _write_atomically(target: Path, data: bytes) -> None:
    scratch = target.with_suffix(".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(data)
        scratch.replace(target)
    except OSError as error:
        raise out_of_space(error, target) from error


def named_corpus(path: Path, shortest: int = MIN_CHARACTERS) -> Path:
    """Check a text given by the user. Raises CorpusError if it is missing, not UTF-8 or has too few characters."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CorpusError(
            f"cannot read the text {path}: {error.strerror}", hint="name a UTF-8 text with --corpus FILE"
        ) from error
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{path} is not UTF-8: byte 0x{error.object[error.start]:02x} at position {error.start}",
            hint=f"convert it, for example: iconv -f latin1 -t utf-8 {path} > text.txt",
        ) from error
    if len(text) < shortest:
        raise CorpusError(
            f"{path} has {len(text)} characters, fewer than {shortest}",
            hint="name a longer text with --corpus FILE",
        )
    return path.resolve()
