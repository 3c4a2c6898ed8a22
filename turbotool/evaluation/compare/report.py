"""Two result sets side by side as text for a terminal and in Markdown, and the files of a report."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from turbotool.evaluation.compare.contrast import DIGITS, IDENTICAL, UNKNOWN, Contrast, Difference
from turbotool.evaluation.compare.document import document
from turbotool.evaluation.judge.finding import ALIKE, UNRESOLVED
from turbotool.evaluation.judge.interval import CONFIDENCE
from turbotool.report.table import NOTHING, aligned, markdown_lines
from turbotool.system.documents import encode
from turbotool.system.files import write_file

JSON_NAME, MARKDOWN_NAME = "compare.json", "compare.md"
TOLD = ("mean_kld", "same_top", "ln_ppl")  # on a terminal, unless all of it is asked for
WORDS = [True, True, True, True, False, False, False, False, True]  # columns that are text


def write_report(folder: Path, contrast: Contrast) -> None:
    """Write both files, each as a whole. Raises NoSpace."""
    write_file(folder / JSON_NAME, encode(document(contrast)))
    write_file(folder / MARKDOWN_NAME, markdown(contrast).encode())


def told(contrast: Contrast) -> list[str]:
    """What has to be known before any figure is read: who is who, what differs, what was left out. A line each."""
    lines = [f"{letter}: {found.name}" for letter, found in (("A", contrast.a), ("B", contrast.b))]
    lines += [f"{what}: {a} in A, {b} in B" for what, a, b in contrast.facts]
    if not contrast.facts:
        lines.append("programs, texts and machine are the same in both")
    lines += [
        f"effective configuration differs in {cells} cells: {field} is {a} in A and {b} in B"
        for (field, a, b), cells in contrast.effective.items()
    ]
    for what, cells in (("not compared", contrast.refused), ("not in both", contrast.missing)):
        lines += [f"{what}: {cell.configuration} on {contrast.corpus(cell)}: {why}" for cell, why in cells.items()]
    return lines


def summary(contrast: Contrast) -> str:
    """How many differences there are, what came of them, and how many intervals miss the truth by chance."""
    verdicts = [one.verdict for one in contrast.differences if one.verdict != UNKNOWN]
    identical, equal, unresolved = (verdicts.count(word) for word in (IDENTICAL, ALIKE, UNRESOLVED))
    judged = len(verdicts) - identical
    return (
        f"{len(verdicts)} statistics: {judged - equal - unresolved} with a difference, {equal} equal within their "
        f"bound, {unresolved} unresolved, {identical} identical; each interval holds {CONFIDENCE:.0%}, so that about "
        f"{(1 - CONFIDENCE) * judged:.1f} of them miss by chance"
    )


def text(contrast: Contrast, *, everything: bool = False) -> str:
    """The table for a terminal: the statistics that choose a cache, or `everything`."""
    shown = [one for one in contrast.differences if everything or one.statistic.name in TOLD]
    return aligned(lines(shown), WORDS) if shown else "no cell is in both"


def lines(differences: Iterable[Difference]) -> list[list[str]]:
    """The heading, then a line for each."""
    found = [["text", "cache", "rotation", "statistic", "A", "B", "B - A", "95 % interval", "verdict"]]
    for one in differences:
        configuration, between = one.configuration, NOTHING
        if one.bounds:
            between = f"{one.bounds[0]:+.6f} to {one.bounds[1]:+.6f}" + ("" if one.paired else " *")
        figures = [_number(one.a), _number(one.b), _number(one.difference, sign="+")]
        named = [one.corpus, configuration.cache, configuration.rotation, one.statistic.title]
        found.append([*named, *figures, between, one.told])
    return found


def _number(value: float, sign: str = "") -> str:
    return f"{value:{sign}.6f}" if math.isfinite(value) else str(value)


def markdown(contrast: Contrast) -> str:
    """The report for people who read text: every statistic."""
    a, b = contrast.a, contrast.b
    rows = [["", "A", "B"], ["results", a.name, b.name], ["model", a.model, b.model]]
    rows += [
        ["model sha256", a.model_sha256[:DIGITS], b.model_sha256[:DIGITS]],
        ["programs sha256", a.binaries[:DIGITS], b.binaries[:DIGITS]],
        ["tree", a.tree[:DIGITS] or NOTHING, b.tree[:DIGITS] or NOTHING],
        ["backend", a.backend, b.backend],
        ["machine", "; ".join(a.machines), "; ".join(b.machines)],
        ["texts", ", ".join(a.corpora.values()), ", ".join(b.corpora.values())],
        ["chunks", f"at most {a.chunks} of {a.ctx} tokens", f"at most {b.chunks} of {b.ctx} tokens"],
    ]
    parts = [f"# {a.model}: {a.name} (A) and {b.name} (B)", markdown_lines(rows)]
    parts.append("\n".join(f"- {line}" for line in told(contrast)[2:]))
    parts += [f"## Differences\n\n{summary(contrast)}.", markdown_lines(lines(contrast.differences)), READING]
    return "\n\n".join(parts) + "\n"


READING = (
    "B - A is paired by chunk; an interval marked * follows from the standard errors over tokens of both sets instead, "
    "and is wider than it need be. A perplexity that is lower is not called better."
)
