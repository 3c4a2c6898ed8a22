"""An evaluation as one HTML file that needs nothing else: no network, no script, readable in light and in dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from turbotool.evaluation.evaluation import Evaluation
from turbotool.evaluation.judge.verdict import summary
from turbotool.evaluation.report import plot
from turbotool.evaluation.report.document import without_folders
from turbotool.evaluation.report.table import (
    BY_POSITION,
    DECODED,
    by_position,
    columns,
    conclusions,
    decoding,
    effective,
    intervals,
    rows,
)
from turbotool.evaluation.sweep import CONTROL, Corpus
from turbotool.report.html import render
from turbotool.report.svg import inline
from turbotool.report.table import entries

if TYPE_CHECKING:  # the command line imports this module to print its help
    from markupsafe import Markup


@dataclass(frozen=True)
class Figure:
    """A plot as a part of the page, and what it shows."""

    drawing: Markup
    caption: str


@dataclass(frozen=True)
class TextSection:
    """Plots and tables of one text: `cells` by line, the heading first, and which columns hold `numbers`.

    `positions` is empty where nothing is known by position.
    """

    name: str
    figures: tuple[Figure, ...]
    cells: Sequence[Sequence[str]]
    numbers: tuple[int, ...]
    positions: Sequence[Sequence[str]]


def page(evaluation: Evaluation, title: str, facts: Iterable[tuple[str, str]]) -> str:
    """The whole file."""
    found = evaluation.comparisons
    lines = [without_folders(line, evaluation).strip() for line in conclusions(evaluation)]
    others, (recommended, memory, serve) = lines[:-3], lines[-3:]
    return render(
        __package__,
        "eval.html.j2",
        title=title,
        recommended=recommended[:1].upper() + recommended[1:],
        memory=memory,
        serve=serve,
        others=others,
        texts=[_section(evaluation, corpus) for corpus in evaluation.sweep.corpora],
        control=CONTROL.cache,
        differences=summary(found),
        intervals=intervals(found),
        decoded=DECODED,
        by_position=BY_POSITION,
        decoding=decoding(evaluation),
        probes=_probes(evaluation),
        effective=effective(evaluation),
        facts=[("what", "value"), *facts],
        command=evaluation.command,
    )


def _section(evaluation: Evaluation, corpus: Corpus) -> TextSection:
    found = rows(evaluation, corpus)
    matrix = [row for row in found if row.job.configuration in evaluation.sweep.configurations] or list(found)
    figures: tuple[Figure, ...] = (
        Figure(inline(plot.heat_map(matrix)), "Mean KLD against f16, in nats; darker is better."),
        Figure(inline(plot.kld_over_bits(found)), "KLD over memory; the dashed line joins what nothing beats in both."),
        Figure(inline(plot.ppl_over_kld(found)), "Perplexity over KLD; whiskers are one standard error."),
        Figure(inline(plot.distribution(found)), "KLD of single tokens: 10 to 90 %, 1 to 99 %, median, maximum."),
    )
    positions = by_position(evaluation, corpus) if plot.points_by_position(found) else []
    if positions:
        caption = "Mean KLD by position; all other figures are of the tokens behind the dashed line."
        figures = (*figures, Figure(inline(plot.kld_by_position(found)), caption))
    listed = columns(found)
    numbers = tuple(number for number, column in enumerate(listed) if not column.is_text)
    return TextSection(corpus.name, figures, entries(listed, found), numbers, positions)


def _probes(evaluation: Evaluation) -> list[list[str]]:
    lines = [["cache", "prompt", "answer", "right"]]
    for probe in evaluation.probes:
        for answer in probe.answers:
            said = " ".join((answer.error or answer.text).split())[:120]
            lines.append([str(probe.configuration), answer.prompt, said, "yes" if answer.right else "no"])
    return lines
