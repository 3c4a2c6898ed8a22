"""Several models in one table: a line for each model, text and cache, a column for each rotation.

It is made of documents of `turbotool eval --json`, so that results that are kept as files make the same table.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence

from turbotool.errors import first_line
from turbotool.evaluation.judge.verdict import BASE, KLD, LN_RATIO, OFF
from turbotool.evaluation.report.document import configuration
from turbotool.evaluation.report.fields import CellFields, EvalDocument
from turbotool.evaluation.report.models_document import FailedModel, ModelDocument
from turbotool.kv.rotation import ROTATIONS
from turbotool.report.table import NOTHING

CSV_FIGURES = (
    *(
        "corpus",
        "k",
        "v",
        "rotation",
        "calibration",
        "bits_per_value",
        "ppl",
        "ppl_error",
        "ppl_f16",
        "ppl_f16_error",
        "mean_kld",
    ),
    *("mean_kld_error", "median_kld", "rms_dp", "same_top", "same_top_error", "chunks", "failure"),
)


def kld_table(documents: Sequence[ModelDocument]) -> list[list[str]]:
    """Mean KLD in nats with its verdict against no rotation, and what follows for the model; the heading first."""
    return _table(documents, (), _kld, ("perplexity", _trust), ("recommended", _recommended))


def ppl_table(documents: Sequence[ModelDocument]) -> list[list[str]]:
    """Perplexity with its verdict against f16, in the same form."""
    return _table(documents, (("f16", _ppl_f16),), _ppl)


DocumentColumn = tuple[str, Callable[[EvalDocument, Sequence[CellFields]], str]]  # of a document and a line's cells


def _table(
    documents: Sequence[ModelDocument],
    before: Sequence[DocumentColumn],
    entry: Callable[[EvalDocument, CellFields], str],
    *after: DocumentColumn,
) -> list[list[str]]:
    sides = [side for side in ROTATIONS if any(cell.rotation == side for one in documents for cell in _cells(one))]
    header = ["model", "text", "cache", *(name for name, _ in before), *sides, *(name for name, _ in after)]
    lines = [header]
    for document in documents:
        if isinstance(document, FailedModel):
            lines.append([document.model.name, *[NOTHING] * (len(header) - 2), "not measured"])
            continue
        for corpus, cache, cells in _groups(document):
            found: dict[str, str] = {cell.rotation: entry(document, cell) for cell in cells}
            line = [document.model.name, corpus, cache]
            line += [of(document, cells) for _, of in before]
            line += [found.get(side, NOTHING) for side in sides]
            lines.append([*line, *(of(document, cells) for _, of in after)])
    return lines


def _cells(document: ModelDocument) -> Sequence[CellFields]:
    return () if isinstance(document, FailedModel) else document.cells


def _groups(document: EvalDocument) -> Iterator[tuple[str, str, list[CellFields]]]:
    """The cells of a line: one text, one cache."""
    for corpus, cache in dict.fromkeys((cell.corpus, configuration(cell).cache) for cell in document.cells):
        cells = [one for one in document.cells if (one.corpus, configuration(one).cache) == (corpus, cache)]
        yield corpus, cache, cells


def _kld(document: EvalDocument, cell: CellFields) -> str:
    return _entry(document, cell, cell.mean_kld, 6, (OFF, KLD))


def _ppl(document: EvalDocument, cell: CellFields) -> str:
    return _entry(document, cell, cell.ppl, 4, (BASE, LN_RATIO))


def _entry(document: EvalDocument, cell: CellFields, value: float | None, digits: int, about: tuple[str, str]) -> str:
    """A figure with its verdict (against what, of which quantity), or in a word why there is none."""
    if cell.failure or value is None:
        return short(cell.failure or "")
    verdict = _verdict(document, cell, *about)
    return f"{value:.{digits}f}" + (f" {verdict}" if verdict else "")


def _ppl_f16(_: EvalDocument, cells: Sequence[CellFields]) -> str:
    found = [cell.ppl_f16 for cell in cells if cell.ppl_f16 is not None]
    return f"{found[0]:.4f}" if found else NOTHING


def short(failure: str) -> str:
    """`SIGSEGV` of a message that ends with it; the whole message is in the model's own report."""
    last = failure.rpartition(" ")[2]
    return last if last.startswith("SIG") else failure if failure == "not finite" else "failed"


def _verdict(document: EvalDocument, cell: CellFields, against: str, quantity: str) -> str:
    wanted = (cell.corpus, configuration(cell), against, quantity)
    found = (
        one.finding or one.verdict
        for one in document.verdicts.comparisons
        if (one.corpus, configuration(one), one.against, one.quantity) == wanted
    )
    return next(found, "")


def _trust(document: EvalDocument, cells: Sequence[CellFields]) -> str:
    judged = {one.corpus: one.reliable for one in document.verdicts.perplexity}
    return "no contradiction" if judged[cells[0].corpus] else "unreliable"


def _recommended(document: EvalDocument, _: Sequence[CellFields]) -> str:
    return str(configuration(document.recommendation))


def comma_separated(documents: Sequence[ModelDocument]) -> str:
    """One line for each cell; figures in full, empty where there is none."""
    sink = io.StringIO()
    writer = csv.DictWriter(sink, ("model", *CSV_FIGURES), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for document in documents:
        for cell in _cells(document):
            writer.writerow({"model": document.model.name, **vars(cell)})
    return sink.getvalue()


def conclusions(documents: Sequence[ModelDocument]) -> list[str]:
    """What to run on each model and how much memory that saves, or why it stays f16, a line each.

    A decode path that is not that of a batch stands there, too.
    """
    return [f"{one.model.name}: {_conclusion(one)}" for one in documents]


def _conclusion(document: ModelDocument) -> str:
    if isinstance(document, FailedModel):
        return f"not measured: {first_line(document.error['message'])}"
    found = document.recommendation
    failed = "".join(f"; {one.finding}" for one in document.controls.decode_path if not one.ok)
    if not found.saved_mib:
        return f"run {configuration(found)}: {found.reason}{failed}"
    return f"run {configuration(found)}, {found.saved_mib:.0f} MiB less than f16 at {found.ctx} tokens{failed}"
