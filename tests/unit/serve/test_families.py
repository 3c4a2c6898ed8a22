"""The table of model families is the one that the page shows."""

from __future__ import annotations

from pathlib import Path

from turbotool.report.table import NOTHING, markdown_lines
from turbotool.serve.families import FAMILIES, ModelFamily, figure

PAGE = Path(__file__).parents[3] / "docs" / "guides" / "serve.md"
CACHES = ("q8_0", "q8_0/turbo4", "q4_0", "turbo4", "turbo3", "turbo2")


def row(family: ModelFamily) -> list[str]:
    kld = family.kld or {}
    figures = [figure(kld[name]) if name in kld else NOTHING for name in CACHES]
    return [family.name, family.measured_on or NOTHING, *figures]


def table() -> str:
    return markdown_lines([["kind of model", "measured on", *CACHES], *map(row, FAMILIES)])


def test_the_page_has_every_figure_of_the_table() -> None:
    assert table() in PAGE.read_text(encoding="utf-8")


def test_no_figure_stands_for_a_cache_that_the_page_does_not_show() -> None:
    assert {name for family in FAMILIES for name in family.kld or {}} <= set(CACHES)
