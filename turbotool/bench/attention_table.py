"""The attention alone as a table for a terminal."""

from __future__ import annotations

from turbotool.bench.attention import AttentionBench, AttentionCell
from turbotool.bench.table import both
from turbotool.report import table
from turbotool.report.table import Column, shown_columns

BUILD: Column[AttentionCell] = Column("build", lambda cell: cell.build, is_text=True)
COLUMNS: tuple[Column[AttentionCell], ...] = (
    Column("head", lambda cell: cell.shape.head),
    Column("group", lambda cell: str(cell.shape.group)),
    Column("tokens", lambda cell: str(cell.shape.tokens)),
    Column("depth", lambda cell: str(cell.shape.depth)),
    Column("threads", lambda cell: str(cell.shape.threads)),
    Column("cache", lambda cell: cell.cache, is_text=True),
    BUILD,
    Column("ns", lambda cell: f"{cell.ns.median:.2f}"),
    Column("least", lambda cell: f"{cell.least:.2f}"),
    Column("to read", lambda cell: f"{cell.read:.2f}"),
    Column("time / f16", lambda cell: both(cell.ratio_f16)),
    Column("ours / against", lambda cell: both(cell.ratio_against)),
)


def attention_text(done: AttentionBench) -> str:
    """A line for each cell; of one build alone its name says nothing."""
    columns = [column for column in COLUMNS if len(done.binaries) > 1 or column is not BUILD]
    return table.text(shown_columns(columns, done.cells), done.cells)
