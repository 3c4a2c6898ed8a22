"""The text of a calibration: the passages that it is measured on, and those that are held back to check it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

from turbotool.errors import CorpusError
from turbotool.programs.perplexity import Text
from turbotool.system.files import write_file

PAGE = 4  # characters for each token of a sequence: several texts are taken in turn, a page at a time
LONGEST = 16  # characters of a token; what is longer than all tokens could need is left out
FEWEST_CHUNKS = 2  # that llama-perplexity wants a text to have


@dataclass(frozen=True)
class Passages:
    """What calibrates, and what is held back; None without a check."""

    measured: Text
    held: Text | None


def require_passages(texts: Sequence[Path], ctx: int, sequences: int, chunks: int) -> None:
    """Raise CorpusError if the texts cannot have the tokens that are needed: each takes a byte or more, but for BOS."""
    most = sum(path.stat().st_size for path in texts) + 1
    needed = ctx * (sequences + _held(chunks))
    if most < needed:
        names = " and ".join(map(str, texts))
        held = f" and {_held(chunks)} to check it" if chunks else ""
        raise CorpusError(
            f"{names}: at most {most} tokens; {sequences} sequences of {ctx} tokens to calibrate{held} need {needed}",
            hint="name more text with --corpus FILE, or a smaller --ctx or --sequences",
        )


def make_passages(texts: Sequence[Path], ctx: int, sequences: int, chunks: int, folder: Path) -> Passages:
    """Write both parts to `folder`. A text is divided as the tokens are that the two parts need; no part is in both."""
    whole = "".join(_in_turn([path.read_text(encoding="utf-8") for path in texts], PAGE * ctx))
    end = _end(whole, len(whole) * sequences // (sequences + _held(chunks)))
    measured = whole[: min(end, LONGEST * ctx * sequences)]
    first = _write(folder / "measured.txt", measured)
    if not chunks:
        return Passages(Text(first, ctx, sequences), None)
    held = whole[end:][: LONGEST * ctx * _held(chunks)]
    return Passages(Text(first, ctx, sequences), Text(_write(folder / "held.txt", held), ctx, chunks))


def _held(chunks: int) -> int:
    return max(chunks, FEWEST_CHUNKS) if chunks else 0


def _in_turn(texts: Sequence[str], size: int) -> Iterator[str]:
    """A page of each text, then the next page of each, so that every text is in both parts."""
    if len(texts) == 1:
        return iter(texts)
    pages = zip_longest(*(_pages(text, size) for text in texts), fillvalue="")
    return (page if page.endswith("\n") else f"{page}\n" for page in chain.from_iterable(pages) if page)


def _pages(text: str, size: int) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = _end(text, start + size)
        yield text[start:end]
        start = end


def _end(text: str, wanted: int) -> int:
    """Behind the line that holds this place, or behind the word if the line is long."""
    after = text[wanted : wanted + PAGE * 100]
    for mark in ("\n", " "):
        if mark in after:
            return wanted + after.index(mark) + 1
    return min(wanted, len(text))


def _write(path: Path, text: str) -> Path:
    write_file(path, text.encode())
    return path
