"""The cells of a benchmark as tables, for a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from turbotool.bench.figures import BenchCell, Spread
from turbotool.kv.cachetype import F16
from turbotool.programs.llamabench import DECODE, PREFILL
from turbotool.report import table
from turbotool.report.table import NOTHING, Column, shown_columns

TITLES = {PREFILL: "Prefill", DECODE: "Decode"}


BUILD: Column[BenchCell] = Column("build", lambda cell: cell.job.build, is_text=True)
COLUMNS: tuple[Column[BenchCell], ...] = (
    Column("cache", lambda cell: cell.job.point.cache, is_text=True),
    Column("threads", lambda cell: str(cell.job.point.threads)),
    Column("depth", lambda cell: str(cell.job.point.depth)),
    BUILD,
    Column("tokens/s", lambda cell: _median(cell.speed, 2)),
    Column("min–max", lambda cell: _range(cell.speed, 2)),  # noqa: RUF001
    Column("ms/token", lambda cell: NOTHING if cell.ms_per_token is None else f"{cell.ms_per_token:.3f}"),
    Column("ns per cached token", lambda cell: _median(cell.cached_token, 1)),
    Column("speed / f16", lambda cell: "1" if cell.job.point.pair == F16 else both(cell.ratio_f16)),
    Column("ours / against", lambda cell: both(cell.ratio_against)),
)


def columns(cells: Sequence[BenchCell]) -> tuple[Column[BenchCell], ...]:
    """Those that say anything about these cells; of one build alone its name says nothing."""
    one_build = len({cell.job.build for cell in cells}) == 1
    return shown_columns([column for column in COLUMNS if not (one_build and column is BUILD)], cells)


def _median(found: Spread | None, digits: int) -> str:
    return f"{found.median:.{digits}f}" if found else NOTHING


def _range(found: Spread | None, digits: int) -> str:
    return f"{found.minimum:.{digits}f}–{found.maximum:.{digits}f}" if found else NOTHING  # noqa: RUF001


def both(found: Spread | None) -> str:
    """Median, and in brackets least and most."""
    return f"{_median(found, 3)} ({_range(found, 3)})" if found else NOTHING


def of_kind(cells: Sequence[BenchCell], kind: str) -> tuple[BenchCell, ...]:
    """The cells of one phase that have a figure, those that belong together one after the other."""
    return tuple(cell for cell in cells if cell.phase.kind == kind and cell.speed)


def text(cells: Sequence[BenchCell]) -> str:
    """The tables of both phases as aligned lines; empty if nothing was measured."""
    return "\n\n".join(_text(found) for kind in TITLES if (found := of_kind(cells, kind)))


def _text(cells: Sequence[BenchCell]) -> str:
    return f"{TITLES[cells[0].phase.kind]} ({cells[0].phase})\n{table.text(columns(cells), cells)}"


def markdown_table(cells: Sequence[BenchCell]) -> str:
    """The table of one phase."""
    return table.markdown(columns(cells), cells)
