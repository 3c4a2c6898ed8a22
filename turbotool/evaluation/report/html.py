"""An evaluation as one HTML file that needs nothing else: no network, no script, readable in light and in dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from turbotool.evaluation.evaluation import Evaluation
from turbotool.evaluation.judge.verdict import summary
from turbotool.evaluation.report import plot
from turbotool.evaluation.report.document import without_folders
from turbotool.evaluation.report.table import CellRow, columns, conclusions, effective, intervals, rows
from turbotool.evaluation.sweep import CONTROL, Corpus
from turbotool.report.html import joined, table, whole
from turbotool.report.svg import INK


def page(evaluation: Evaluation, title: str, facts: Iterable[tuple[str, str]]) -> str:
    """The whole file."""
    found = evaluation.comparisons
    body = [
        _conclusions(evaluation),
        *(_of_text(evaluation, corpus) for corpus in evaluation.sweep.corpora),
        "<h2>Differences</h2>",
        f'<p class="note">{escape(summary(found))}. Paired over chunks, by Student&#8217;s t.</p>',
        table(intervals(found), numbers=(5, 6)),
        "<h2>Controls</h2>",
        _probes(evaluation),
        "<h2>Effective configuration</h2>",
        '<p class="note">Read back from the log of each run; a cell that ran otherwise than asked has no figures.</p>',
        table(effective(evaluation)),
        "<h2>Setting</h2>",
        table([["what", "value"], *map(list, facts)], long=(1,)),
        f"<p>The command that repeats it:</p><pre>{escape(evaluation.command)}</pre>",
    ]
    return whole(title, body)


def _conclusions(evaluation: Evaluation) -> str:
    """What was found: the recommendation first."""
    lines = [without_folders(line, evaluation).strip() for line in conclusions(evaluation)]
    others, (recommended, memory, command) = lines[:-3], lines[-3:]
    listed = "".join(f"<li>{escape(line)}</li>" for line in others)
    return (
        f'<div class="recommended"><p><strong>{escape(recommended[:1].upper() + recommended[1:])}.</strong> '
        f"{escape(memory)}.</p><pre>{escape(command)}</pre></div><ul>{listed}</ul>"
    )


def _of_text(evaluation: Evaluation, corpus: Corpus) -> str:
    """Plots and table of one text."""
    found = rows(evaluation, corpus)
    matrix = [row for row in found if row.job.configuration in evaluation.sweep.configurations] or list(found)
    pictures = (
        ("Mean KLD against f16, in nats; darker is better.", plot.heat_map(matrix)),
        ("KLD over memory; the dashed line joins what nothing beats in both.", plot.kld_over_bits(found)),
        ("Perplexity over KLD; whiskers are one standard error.", plot.ppl_over_kld(found)),
        ("KLD of single tokens: 10 to 90 %, 1 to 99 %, median, maximum.", plot.distribution(found)),
    )
    figures = joined(
        f"<figure>{svg.replace(INK, 'currentColor')}<figcaption>{escape(text)}</figcaption></figure>"
        for text, svg in pictures
    )
    control = f"{CONTROL.pair.short} without rotation is a control: it is known to be worse."
    return (
        f'<h2>{escape(corpus.name)}</h2>\n<div class="pair">{figures}</div>\n{_cells(found)}'
        f'<p class="note">Each value with its standard error over tokens. {escape(control)}</p>'
    )


def _cells(found: Sequence[CellRow]) -> str:
    listed = columns(found)
    numbers = tuple(number for number, column in enumerate(listed) if not column.is_text)
    lines = [[column.name for column in listed], *([column.of(row) for column in listed] for row in found)]
    return table(lines, numbers=numbers)


def _probes(evaluation: Evaluation) -> str:
    lines = [["cache", "prompt", "answer", "right"]]
    for probe in evaluation.probes:
        for answer in probe.answers:
            said = " ".join((answer.error or answer.text).split())[:120]
            lines.append([str(probe.configuration), answer.prompt, said, "yes" if answer.right else "no"])
    return table(lines, long=(2,))
