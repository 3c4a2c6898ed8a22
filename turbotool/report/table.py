"""Rows of text as aligned lines, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

NOTHING = "–"  # noqa: RUF001 (a dash, as tables have it)


def aligned(lines: Sequence[Sequence[str]], is_text: Sequence[bool]) -> str:
    """Columns two blanks apart; those of text flush left, those of numbers flush right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            entry.ljust(width) if left else entry.rjust(width)
            for entry, width, left in zip(line, widths, is_text, strict=True)
        ).rstrip()
        for line in lines
    )


def markdown_row(entries: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(entry.replace('|', chr(92) + '|') for entry in entries)} |"


def markdown_lines(lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, the heading first."""
    header, *body = lines
    return "\n".join(map(markdown_row, [header, ["---"] * len(header), *body]))
