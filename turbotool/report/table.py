"""Tables: as aligned lines for a terminal, and in Markdown; of rows of text, or of columns that know what they show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
NOTHING = "–"  # noqa: RUF001 (a dash, as tables have it)


@dataclass(frozen=True)
class Column(Generic[T]):
    """A heading and what stands below it for a row; text is set flush left, numbers flush right."""

    name: str
    of: Callable[[T], str]
    is_text: bool = False


def shown_columns(columns: Sequence[Column[T]], rows: Sequence[T]) -> tuple[Column[T], ...]:
    """Those that say anything about these rows."""
    return tuple(column for column in columns if any(column.of(row) != NOTHING for row in rows))


def entries(columns: Sequence[Column[T]], rows: Sequence[T]) -> list[list[str]]:
    """What stands in the table, the heading first."""
    return [[column.name for column in columns], *([column.of(row) for column in columns] for row in rows)]


def text(columns: Sequence[Column[T]], rows: Sequence[T]) -> str:
    """The table as aligned lines."""
    return aligned(entries(columns, rows), [column.is_text for column in columns])


def markdown(columns: Sequence[Column[T]], rows: Sequence[T]) -> str:
    """The table in Markdown."""
    header, *body = entries(columns, rows)
    ruler = ["---" if column.is_text else "---:" for column in columns]
    return "\n".join(map(markdown_row, [header, ruler, *body]))


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
    """A table of text in Markdown, the heading first."""
    header, *body = lines
    return "\n".join(map(markdown_row, [header, ["---"] * len(header), *body]))
