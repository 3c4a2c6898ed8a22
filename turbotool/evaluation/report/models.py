"""Several models in one table: a line for each model, text and cache, a column for each rotation.

It is made of the documents of `turbotool eval --json`, so that results that are kept as files make the same table.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from turbotool.errors import BinaryFailed, ConfigurationMismatch, TurbotoolError, first_line
from turbotool.evaluation.cell import Configuration
from turbotool.evaluation.evaluation import Evaluation
from turbotool.evaluation.judge.verdict import BASE, KLD, LN_RATIO, OFF
from turbotool.evaluation.measure.work import verdict
from turbotool.evaluation.report import document as evaluation_document
from turbotool.evaluation.report.document import nameless, shareable
from turbotool.evaluation.sweep import Sweep
from turbotool.kv.cachetype import CachePair
from turbotool.kv.rotation import ROTATIONS
from turbotool.report.table import NOTHING


@dataclass(frozen=True)
class Failed:
    """A model of which nothing could be measured, and why."""

    sweep: Sweep
    error: TurbotoolError


ModelOutcome = Evaluation | Failed
Document = Mapping[str, Any]
CSV_FIGURES = (
    *("corpus", "k", "v", "rotation", "bits_per_value", "ppl", "ppl_error", "ppl_f16", "ppl_f16_error", "mean_kld"),
    *("mean_kld_error", "median_kld", "rms_dp", "same_top", "same_top_error", "chunks", "failure"),
)


def documents(found: Sequence[ModelOutcome]) -> list[Document]:
    """What `turbotool eval --json` tells of each model."""
    return [evaluation_document.document(one) if isinstance(one, Evaluation) else _failed(one) for one in found]


def shared(found: Sequence[ModelOutcome]) -> list[Document]:
    """The same without folders of this machine."""
    return [shareable(one) if isinstance(one, Evaluation) else _failed(one, hide=True) for one in found]


def _failed(one: Failed, *, hide: bool = False) -> Document:
    model, error = one.sweep.model.path, one.error.as_json()
    if not hide:
        return {"ok": False, "model": {"path": str(model), "name": model.name}, "error": error}
    told = {**error, "message": nameless(one.error.message, one.sweep), "hint": None}
    return {"ok": False, "model": {"name": model.name}, "error": told}


def failure(found: Sequence[ModelOutcome]) -> TurbotoolError | None:
    """The error that the command ends with: None if everything was measured."""
    ends = [(one.sweep.model.path.name, _error(one)) for one in found]
    errors = [(name, error) for name, error in ends if error]
    if len(errors) <= 1:
        return next((error for _, error in errors), None)
    named = "; ".join(f"{name}: {first_line(error.message)}" for name, error in errors)
    message = f"{len(errors)} of {len(found)} models could not be measured in full: {named}"
    hint = f"read {found[0].sweep.runner.log}"
    if any(isinstance(error, ConfigurationMismatch) for _, error in errors):
        return ConfigurationMismatch(message, hint=hint)
    return BinaryFailed(message, how="failed models", hint=hint)


def _error(one: ModelOutcome) -> TurbotoolError | None:
    return verdict(one.ledger, one.sweep.runner.log) if isinstance(one, Evaluation) else one.error


def configuration(cell: Document) -> Configuration:
    """Which cell it is; a recommendation has the same fields."""
    return Configuration(CachePair(cell["k"], cell["v"]), cell["rotation"])


def kld_table(documents: Sequence[Document]) -> list[list[str]]:
    """Mean KLD in nats with its verdict against no rotation, and what follows for the model; the heading first."""
    return _table(documents, (), _kld, ("perplexity", _trust), ("recommended", _recommended))


def ppl_table(documents: Sequence[Document]) -> list[list[str]]:
    """Perplexity with its verdict against f16, in the same form."""
    return _table(documents, (("f16", _ppl_f16),), _ppl)


DocumentColumn = tuple[str, Callable[[Document, Sequence[Document]], str]]  # of a document and the cells of its line


def _table(
    documents: Sequence[Document],
    before: Sequence[DocumentColumn],
    entry: Callable[[Document, Document], str],
    *after: DocumentColumn,
) -> list[list[str]]:
    sides = [side for side in ROTATIONS if any(cell["rotation"] == side for one in documents for cell in _cells(one))]
    header = ["model", "text", "cache", *(name for name, _ in before), *sides, *(name for name, _ in after)]
    lines = [header]
    for document in documents:
        for corpus, pair, cells in _groups(document):
            found = {cell["rotation"]: entry(document, cell) for cell in cells}
            line = [document["model"]["name"], corpus, pair.short]
            line += [of(document, cells) for _, of in before]
            line += [found.get(side, NOTHING) for side in sides]
            lines.append([*line, *(of(document, cells) for _, of in after)])
        if not _cells(document):
            lines.append([document["model"]["name"], *[NOTHING] * (len(header) - 2), "not measured"])
    return lines


def _cells(document: Document) -> Sequence[Document]:
    found: Sequence[Document] = document.get("cells", ())
    return found


def _groups(document: Document) -> Iterator[tuple[str, CachePair, list[Document]]]:
    """The cells of a line: one text, one pair of types."""
    for corpus, pair in dict.fromkeys((cell["corpus"], configuration(cell).pair) for cell in _cells(document)):
        cells = [one for one in _cells(document) if (one["corpus"], configuration(one).pair) == (corpus, pair)]
        yield corpus, pair, cells


def _kld(document: Document, cell: Document) -> str:
    if cell["failure"]:
        return short(cell["failure"])
    verdict = _verdict(document, cell, OFF, KLD)
    return f"{cell['mean_kld']:.6f}" + (f" {verdict}" if verdict else "")


def _ppl(document: Document, cell: Document) -> str:
    if cell["failure"]:
        return short(cell["failure"])
    verdict = _verdict(document, cell, BASE, LN_RATIO)
    return f"{cell['ppl']:.4f}" + (f" {verdict}" if verdict else "")


def _ppl_f16(_: Document, cells: Sequence[Document]) -> str:
    found = [cell["ppl_f16"] for cell in cells if cell["ppl_f16"] is not None]
    return f"{found[0]:.4f}" if found else NOTHING


def short(failure: str) -> str:
    """`SIGSEGV` of a message that ends with it; the whole message is in the model's own report."""
    last = failure.rpartition(" ")[2]
    return last if last.startswith("SIG") else failure if failure == "not finite" else "failed"


def _verdict(document: Document, cell: Document, against: str, quantity: str) -> str:
    wanted = (cell["corpus"], configuration(cell), against, quantity)
    found = (
        one["verdict"]
        for one in document["verdicts"]["comparisons"]
        if (one["corpus"], configuration(one), one["against"], one["quantity"]) == wanted
    )
    return next(found, "")


def _trust(document: Document, cells: Sequence[Document]) -> str:
    judged = {one["corpus"]: one["reliable"] for one in document["verdicts"]["perplexity"]}
    return "no contradiction" if judged[cells[0]["corpus"]] else "unreliable"


def _recommended(document: Document, _: Sequence[Document]) -> str:
    found = document["recommendation"]
    return str(configuration(found))


def comma_separated(documents: Sequence[Document]) -> str:
    """One line for each cell; figures in full, empty where there is none."""
    sink = io.StringIO()
    writer = csv.DictWriter(sink, ("model", *CSV_FIGURES), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for document in documents:
        for cell in _cells(document):
            writer.writerow({"model": document["model"]["name"], **cell})
    return sink.getvalue()


def conclusions(documents: Sequence[Document]) -> list[str]:
    """What to run on each model and how much memory that saves, or why it stays f16, a line each."""
    return [f"{one['model']['name']}: {_conclusion(one)}" for one in documents]


def _conclusion(document: Document) -> str:
    found = document.get("recommendation")
    if found is None:
        return f"not measured: {first_line(document['error']['message'])}"
    if not found["saved_mib"]:
        return f"run {configuration(found)}: {found['reason']}"
    return f"run {configuration(found)}, {found['saved_mib']:.0f} MiB less than f16 at {found['ctx']} tokens"
