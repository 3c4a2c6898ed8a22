"""An evaluation as one HTML file that needs nothing else: no network, no script, readable in light and in dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from turbotool import evalplot
from turbotool.benchplot import INK
from turbotool.evaldocument import Evaluation, without_folders
from turbotool.evalplan import WORSE, Corpus
from turbotool.evaltable import Row, columns, conclusions, effective, intervals, rows
from turbotool.evalverdict import summary

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0; --box: #f6f8fa;
        --good: #1a7f37; --bad: #cf222e; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #0d1117; --ink: #e6edf3; --soft: #9198a1; --line: #3d444d; --box: #151b23; --good: #3fb950;
          --bad: #f85149; } }
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto;
       max-width: 80rem; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.25; } h2 { border-bottom: 1px solid var(--line); margin-top: 2.2rem; }
p.note, figcaption { color: var(--soft); font-size: 14px; }
pre { background: var(--box); border: 1px solid var(--line); border-radius: 6px; overflow-x: auto; padding: .7rem; }
.recommended { background: var(--box); border-left: 4px solid var(--good); padding: .2rem 1rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 13.5px; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .6rem; text-align: left; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; } td.number, th.number { font-variant-numeric: tabular-nums;
text-align: right; } td.long { overflow-wrap: anywhere; white-space: normal; }
.better { color: var(--good); } .worse { color: var(--bad); }
figure { margin: 1.2rem 0; } svg { color: var(--soft); height: auto; max-width: 100%; }
.pair { display: grid; gap: 1.5rem; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); }
"""


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


def whole(title: str, body: Sequence[str]) -> str:
    """A file with that title and these elements."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    head += f"<style>{STYLE}</style>"
    lines = _lines([f"<h1>{escape(title)}</h1>", *body])
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{lines}</body></html>\n'


def _lines(parts: Iterable[str]) -> str:
    return "".join(f"{part}\n" for part in parts)


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
        ("Mean KLD against f16, in nats; darker is better.", evalplot.heat_map(matrix)),
        ("KLD over memory; the dashed line joins what nothing beats in both.", evalplot.kld_over_bits(found)),
        ("Perplexity over KLD; whiskers are one standard error.", evalplot.ppl_over_kld(found)),
        ("KLD of single tokens: 10 to 90 %, 1 to 99 %, median, maximum.", evalplot.distribution(found)),
    )
    figures = _lines(
        f"<figure>{svg.replace(INK, 'currentColor')}<figcaption>{escape(text)}</figcaption></figure>"
        for text, svg in pictures
    )
    control = f"{WORSE.pair.short} without rotation is a control: it is known to be worse."
    return (
        f'<h2>{escape(corpus.name)}</h2>\n<div class="pair">{figures}</div>\n{_cells(found)}'
        f'<p class="note">Each value with its standard error over tokens. {escape(control)}</p>'
    )


def _cells(found: Sequence[Row]) -> str:
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


def table(lines: Sequence[Sequence[str]], *, numbers: Sequence[int] = (), long: Sequence[int] = ()) -> str:
    """A table whose first line is its heading; verdicts have their colour."""
    head = "".join(_entry("th", text, number in numbers, False) for number, text in enumerate(lines[0]))
    body = "".join(
        f"<tr>{''.join(_entry('td', text, n in numbers, n in long) for n, text in enumerate(line))}</tr>\n"
        for line in lines[1:]
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _entry(tag: str, text: str, number: bool, long: bool) -> str:
    verdict = text.rpartition(" ")[2]
    names = [name for name, on in (("number", number), ("long", long), (verdict, verdict in ("better", "worse"))) if on]
    attribute = f' class="{" ".join(names)}"' if names else ""
    return f"<{tag}{attribute}>{escape(text)}</{tag}>"
