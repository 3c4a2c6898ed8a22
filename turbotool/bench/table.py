"""The cells of a benchmark as tables, for a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from turbotool.bench.figures import BenchCell, Spread
from turbotool.bench.plan import F16
from turbotool.programs.llamabench import DECODE, PREFILL
from turbotool.report.table import NOTHING, aligned, markdown_row

TITLES = {PREFILL: "Prefill", DECODE: "Decode"}


@dataclass(frozen=True)
class BenchColumn:
    """A heading and what stands below it; text is set flush left, numbers flush right."""

    name: str
    of: Callable[[BenchCell], str]
    is_text: bool = False


COLUMNS = (
    BenchColumn("cache", lambda cell: cell.job.point.pair.short, is_text=True),
    BenchColumn("threads", lambda cell: str(cell.job.point.threads)),
    BenchColumn("depth", lambda cell: str(cell.job.point.depth)),
    BenchColumn("build", lambda cell: cell.job.build, is_text=True),
    BenchColumn("tokens/s", lambda cell: _median(cell.speed, 2)),
    BenchColumn("min–max", lambda cell: _range(cell.speed, 2)),  # noqa: RUF001
    BenchColumn("ms/token", lambda cell: NOTHING if cell.ms_per_token is None else f"{cell.ms_per_token:.3f}"),
    BenchColumn("ns per cached token", lambda cell: _median(cell.cached_token, 1)),
    BenchColumn("speed / f16", lambda cell: "1" if cell.job.point.pair == F16 else _both(cell.ratio_f16)),
    BenchColumn("ours / against", lambda cell: _both(cell.ratio_against)),
)


def columns(cells: Sequence[BenchCell]) -> tuple[BenchColumn, ...]:
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


def of_kind(cells: Sequence[BenchCell], kind: str) -> tuple[BenchCell, ...]:
    """The cells of one phase that have a figure, those that belong together one after the other."""
    return tuple(cell for cell in cells if cell.phase.kind == kind and cell.speed)


def text(cells: Sequence[BenchCell]) -> str:
    """The tables of both phases as aligned lines; empty if nothing was measured."""
    return "\n\n".join(_text(found) for kind in TITLES if (found := of_kind(cells, kind)))


def _text(cells: Sequence[BenchCell]) -> str:
    shown = columns(cells)
    rows = [[column.name for column in shown], *([column.of(cell) for column in shown] for cell in cells)]
    lines = aligned(rows, [column.is_text for column in shown])
    return f"{TITLES[cells[0].phase.kind]} ({cells[0].phase})\n{lines}"


def markdown_table(cells: Sequence[BenchCell]) -> str:
    """The table of one phase."""
    shown = columns(cells)
    lines = [
        markdown_row([column.name for column in shown]),
        markdown_row(["---" if column.is_text else "---:" for column in shown]),
        *(markdown_row([column.of(cell) for column in shown]) for cell in cells),
    ]
    return "\n".join(lines)
