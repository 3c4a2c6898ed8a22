"""The cells of a benchmark as tables, for a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from turbotool.benchcell import Cell, Spread
from turbotool.benchplan import F16
from turbotool.llamabench import DECODE, PREFILL
from turbotool.table import NOTHING, aligned

TITLES = {PREFILL: "Prefill", DECODE: "Decode"}


@dataclass(frozen=True)
class Column:
    """A heading and what stands below it; text is set flush left, numbers flush right."""

    name: str
    of: Callable[[Cell], str]
    is_text: bool = False


COLUMNS = (
    Column("cache", lambda cell: cell.job.point.pair.short, is_text=True),
    Column("threads", lambda cell: str(cell.job.point.threads)),
    Column("depth", lambda cell: str(cell.job.point.depth)),
    Column("build", lambda cell: cell.job.build, is_text=True),
    Column("tokens/s", lambda cell: _median(cell.speed, 2)),
    Column("min–max", lambda cell: _range(cell.speed, 2)),  # noqa: RUF001
    Column("ms/token", lambda cell: NOTHING if cell.ms_per_token is None else f"{cell.ms_per_token:.3f}"),
    Column("ns per cached token", lambda cell: _median(cell.cached_token, 1)),
    Column("speed / f16", lambda cell: "1" if cell.job.point.pair == F16 else _both(cell.ratio_f16)),
    Column("ours / against", lambda cell: _both(cell.ratio_against)),
)


def columns(cells: Sequence[Cell]) -> tuple[Column, ...]:
    """Those that say anything about these cells."""
    one_build = len({cell.job.build for cell in cells}) == 1
    return tuple(
        column
        for column in COLUMNS
        if any(column.of(cell) != NOTHING for cell in cells) and not (one_build and column.name == "build")
    )


def _median(found: Spread | None, digits: int) -> str:
    return f"{found.median:.{digits}f}" if found else NOTHING


def _range(found: Spread | None, digits: int) -> str:
    return f"{found.minimum:.{digits}f}–{found.maximum:.{digits}f}" if found else NOTHING  # noqa: RUF001


def _both(found: Spread | None) -> str:
    return f"{_median(found, 3)} ({_range(found, 3)})" if found else NOTHING


def of_kind(cells: Sequence[Cell], kind: str) -> tuple[Cell, ...]:
    """The cells of one phase that have a figure, those that belong together one after the other."""
    return tuple(cell for cell in cells if cell.phase.kind == kind and cell.speed)


def text(cells: Sequence[Cell]) -> str:
    """The tables of both phases as aligned lines; empty if nothing was measured."""
    return "\n\n".join(_text(found) for kind in TITLES if (found := of_kind(cells, kind)))


def _text(cells: Sequence[Cell]) -> str:
    shown = columns(cells)
    rows = [[column.name for column in shown], *([column.of(cell) for column in shown] for cell in cells)]
    lines = aligned(rows, [column.is_text for column in shown])
    return f"{TITLES[cells[0].phase.kind]} ({cells[0].phase})\n{lines}"


def markdown_table(cells: Sequence[Cell]) -> str:
    """The table of one phase."""
    shown = columns(cells)
    lines = [
        markdown_row([column.name for column in shown]),
        markdown_row(["---" if column.is_text else "---:" for column in shown]),
        *(markdown_row([column.of(cell) for column in shown]) for cell in cells),
    ]
    return "\n".join(lines)


def markdown_row(entries: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(entry.replace('|', chr(92) + '|') for entry in entries)} |"
