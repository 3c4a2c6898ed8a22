"""The text that perplexity is measured on: by default the prose of the vendored upstream's own documentation."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from turbotool.errors import CorpusError
from turbotool.system.files import out_of_space

SHORTEST_PROSE = 40  # characters of a paragraph; shorter ones are labels and link lists
MIN_CHARACTERS = 4096  # less cannot fill two chunks of 512 tokens
FENCE = re.compile(r"^\s*(`{3,}|~{3,})")
INDENTED_CODE = re.compile(r"^(?: {4}|\t)")
TABLE_ROW = re.compile(r"^\s*\||\|\s*$|^\s*:?-{3,}:?\s*\|")
QUOTE_MARK = re.compile(r"^\s*(?:>\s?)+(?:\[!\w+\])?")
HEADING = re.compile(r"^\s*#+\s")
LIST_MARK = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s+(?:\[[ xX]\]\s+)?")
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
HTML_BLOCK = re.compile(r"<(table|details|script|style|pre|svg)\b.*?</\1>", re.DOTALL | re.IGNORECASE)
TAG = re.compile(r"</?[A-Za-z][^<>\n]*>")
IMAGE = re.compile(r"!\[[^\]]*\](?:\([^)]*\)|\[[^\]]*\])")
LINK = re.compile(r"\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])")
REFERENCE = re.compile(r"^\s*\[[^\]]+\]:\s")
BARE_URL = re.compile(r"<?https?://[^\s>)]+>?")
EMPHASIS = re.compile(r"\*\*|__|(?<![\w*])[*_](?=\S)|(?<=\S)[*_](?![\w*])|`")


def prose(markdown: str) -> str:
    """The paragraphs of a Markdown text: no code, tables, HTML, images, badges, headings or bare links."""
    text = HTML_BLOCK.sub("\n\n", COMMENT.sub("", markdown))
    paragraphs = (" ".join(lines) for lines in _paragraphs(text.splitlines()))
    return "\n\n".join(paragraph for paragraph in map(_plain, paragraphs) if len(paragraph) >= SHORTEST_PROSE)


def _paragraphs(lines: Iterable[str]) -> Iterator[list[str]]:
    fence = ""
    paragraph: list[str] = []
    for line in (QUOTE_MARK.sub("", raw) for raw in lines):
        mark = FENCE.match(line)
        if mark and (not fence or line.strip().startswith(fence)):
            fence = "" if fence else mark.group(1)
            ends, keeps = True, False
        elif fence:
            continue
        else:
            listed = bool(LIST_MARK.match(line))
            code = not paragraph and bool(INDENTED_CODE.match(line)) and not listed
            dropped = (
                code or any(pattern.match(line) for pattern in (HEADING, REFERENCE)) or bool(TABLE_ROW.search(line))
            )
            ends, keeps = dropped or listed or not line.strip(), not dropped and bool(line.strip())
        if ends and paragraph:
            yield paragraph
            paragraph = []
        if keeps:
            paragraph.append(LIST_MARK.sub("", line).strip())
    if paragraph:
        yield paragraph


def _plain(paragraph: str) -> str:
    text = LINK.sub(r"\1", IMAGE.sub("", paragraph))
    text = EMPHASIS.sub("", BARE_URL.sub("", TAG.sub("", text)))
    return re.sub(r"\s+", " ", html.unescape(text)).strip()


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
