"""Tables of columns: what is shown, how it is aligned, and the same in Markdown."""

from __future__ import annotations

from turbotool.report.table import NOTHING, Column, entries, markdown, shown_columns, text

Row = tuple[str, float, str]
COLUMNS: tuple[Column[Row], ...] = (
    Column("cache", lambda row: row[0], is_text=True),
    Column("KLD", lambda row: f"{row[1]:.2f}"),
    Column("trouble", lambda row: row[2] or NOTHING, is_text=True),
)
ROWS: list[Row] = [("q8_0", 0.5, ""), ("q8_0|turbo4", 12.25, "")]


def test_a_column_that_says_nothing_of_any_row_is_left_out() -> None:
    assert [column.name for column in shown_columns(COLUMNS, ROWS)] == ["cache", "KLD"]
    assert shown_columns(COLUMNS, [*ROWS, ("f16", 0, "crash")]) == COLUMNS
    assert shown_columns(COLUMNS, []) == ()


def test_text_is_flush_left_and_numbers_flush_right() -> None:
    shown = shown_columns(COLUMNS, ROWS)
    assert text(shown, ROWS).splitlines() == [
        "cache          KLD",
        "q8_0          0.50",
        "q8_0|turbo4  12.25",
    ]
    assert entries(shown, ROWS)[1] == ["q8_0", "0.50"]


def test_markdown_has_the_same_entries_with_bars_kept_apart() -> None:
    assert markdown(shown_columns(COLUMNS, ROWS), ROWS).splitlines() == [
        "| cache | KLD |",
        "| --- | ---: |",
        "| q8_0 | 0.50 |",
        r"| q8_0\|turbo4 | 12.25 |",
    ]
