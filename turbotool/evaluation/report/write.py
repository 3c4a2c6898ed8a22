"""The report of an evaluation: a folder with eval.html, eval.md, eval.csv and eval.json that name no folder."""

from __future__ import annotations

from pathlib import Path

from turbotool.evaluation.evaluation import Evaluation
from turbotool.evaluation.judge.verdict import summary
from turbotool.evaluation.report.document import (
    CSV_NAME,
    HTML_NAME,
    JSON_NAME,
    MARKDOWN_NAME,
    shareable,
    without_folders,
)
from turbotool.evaluation.report.html import page
from turbotool.evaluation.report.table import (
    BY_POSITION,
    DECODED,
    by_position,
    comma_separated,
    conclusions,
    decoding,
    intervals,
    markdown_table,
    rows,
)
from turbotool.report.table import markdown_lines
from turbotool.system.documents import encode
from turbotool.system.files import write_file
from turbotool.system.machine import describe

CALIBRATED = "of every quantized K, by auto, but for those that are called uncalibrated or named with a file"


def write_report(folder: Path, evaluation: Evaluation) -> None:
    """Write all four files, each as a whole. Raises NoSpace."""
    write_file(folder / JSON_NAME, encode(shareable(evaluation)))
    write_file(folder / CSV_NAME, comma_separated(evaluation).encode())
    write_file(folder / MARKDOWN_NAME, markdown(evaluation).encode())
    write_file(folder / HTML_NAME, page(evaluation, title(evaluation), facts(evaluation)).encode())


def title(evaluation: Evaluation) -> str:
    return f"KV cache quality of {evaluation.sweep.model.path.name}"


def facts(evaluation: Evaluation) -> tuple[tuple[str, str], ...]:
    """What was measured with what: name and value."""
    sweep = evaluation.sweep
    binaries = sweep.runner.binaries
    return (
        ("model", f"{sweep.model.path.name}, sha256 {sweep.model_sha256}"),
        *(("text", f"{corpus.name}, sha256 {corpus.sha256}") for corpus in sweep.corpora),
        ("chunks", f"at most {sweep.chunks} of {sweep.ctx} tokens, of which the second half counts"),
        ("logits of f16", "computed beside each cache, none stored" if sweep.streamed else "stored"),
        ("no difference", str(evaluation.criteria.equal)),
        ("programs", f"sha256 {sweep.binaries}, backend {binaries.backend}"),
        *([("tree", binaries.tree)] if binaries.tree else []),
        ("flash attention", "on"),
        ("rotation", "in force as asked in every cell, read back from the log of its run"),
        ("calibration", f"{CALIBRATED}; read back as well"),
        *([("plan", evaluation.plan)] if evaluation.plan else []),
        *(("machine", machine) for machine in machines(evaluation)),
    )


def machines(evaluation: Evaluation) -> list[str]:
    """Those that measured; this one if the store does not say."""
    found = {measured.machine for measured in evaluation.ledger.measured.values()} - {""}
    return sorted(found) or [describe(evaluation.machine)]


def markdown(evaluation: Evaluation) -> str:
    """The report for people who read text."""
    lines = [without_folders(line, evaluation) for line in conclusions(evaluation)]
    parts = [f"# {title(evaluation)}", f"```sh\n{evaluation.command}\n```"]
    parts.append("\n".join(f"- {line.strip()}" for line in lines))
    for corpus in evaluation.sweep.corpora:
        parts += [f"## {corpus.name}", markdown_table(rows(evaluation, corpus))]
        if len(positions := by_position(evaluation, corpus)) > 1:
            parts += [f"### KLD by position on {corpus.name}", BY_POSITION + ".", markdown_lines(positions)]
    parts += ["## Differences", summary(evaluation.comparisons) + "."]
    parts.append(markdown_lines(intervals(evaluation.comparisons)))
    parts += ["## Decode path", DECODED + ".", markdown_lines(decoding(evaluation))]
    return "\n\n".join([*parts, "## Setting", markdown_lines([("", ""), *facts(evaluation)])]) + "\n"
