"""A result set: what an evaluation measured, read back from the document that it wrote."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from turbotool.errors import ResultError
from turbotool.evaluation.cell import Configuration, Measured
from turbotool.evaluation.planfile import STORED
from turbotool.evaluation.report.document import ESTIMATES, JSON_NAME, RUNNING, configuration
from turbotool.evaluation.report.fields import CellFields, EvalDocument, RunningFields
from turbotool.evaluation.report.models_document import ModelsDocument
from turbotool.programs.divergence import Divergence, Estimate, Quantiles, Running
from turbotool.system.documents import convert, kind_of, load
from turbotool.system.machine import describe

HINT = "name what `turbotool eval --json` printed, or the folder of its --report"
AGAIN = "measure again with this turbotool: it takes a moment, because the store has what was measured"

PERPLEXITIES = ("ppl", "ppl_f16")  # 1 is that of a model which is always right
LARGEST = 1e100  # beyond every figure, and its square is still a number


@dataclass(frozen=True)
class ResultCell:
    """What identifies a result within its set: the sha256 of the text, and the cache."""

    corpus: str
    configuration: Configuration


@dataclass(frozen=True)
class ResultSet:
    """An evaluation that was done. `corpora` are names by sha256; `failures` say why a cell has no figures.

    `logits` of f16 were stored or streamed.
    """

    name: str
    model: str
    model_sha256: str
    backend: str
    tree: str
    binaries: str
    machines: tuple[str, ...]
    ctx: int
    chunks: int
    corpora: Mapping[str, str]
    measured: Mapping[ResultCell, Measured]
    failures: Mapping[ResultCell, str]
    logits: str = STORED


def read_results(path: Path) -> ResultSet:
    """The result set in a document, or in the folder of a report.

    Raises ResultError if it cannot be read or is none, UnknownCacheType if it has cells of a type that we do not know.
    """
    file = path / JSON_NAME if path.is_dir() else path
    fields = load(file, EvalDocument, hint=HINT)
    if isinstance(fields, Mapping):
        _require_one_of_ours(fields, file)
    document = convert(fields, EvalDocument, file, hint=HINT)
    try:
        return _result_set(path.name if path.is_dir() else path.stem, document)
    except ValueError as error:  # what types cannot say
        raise ResultError(f"{file} is damaged: {error}", hint=AGAIN) from error


def _require_one_of_ours(fields: Mapping[str, object], file: Path) -> None:
    """Tell what is known of documents that are not taken. Raises ResultError."""
    if "schema" not in fields and ("cells" in fields or "models" in fields):
        raise ResultError(f"{file} was written by turbotool 0.1.0: it names no schema", hint=AGAIN)
    if fields.get("schema") == kind_of(ModelsDocument).schema:
        raise ResultError(f"{file} is of several models", hint="name the folder of one of them in its --report")


def _result_set(name: str, document: EvalDocument) -> ResultSet:
    """Raises ValueError where parts do not fit together."""
    corpora = {one.sha256: one.name for one in document.corpora}
    by_name = {text: sha256 for sha256, text in corpora.items()}
    # the q4_0 control last: if it was also asked for, it is the same cell
    listed = (*document.cells, *document.controls.q4_0)
    if unknown := {one.corpus for one in listed} - by_name.keys():
        raise ValueError(f"it has cells of a text that it does not list: {', '.join(sorted(unknown))}")
    cells = {_cell(by_name, one): one for one in listed}
    measured = {cell: found for cell, one in cells.items() if (found := measured_of(one))}
    known = {found.machine for found in measured.values()} - {""}
    return ResultSet(
        name=name,
        model=document.model.name,
        model_sha256=document.model.sha256,
        backend=document.binaries.backend,
        tree=document.binaries.tree or "",
        binaries=document.binaries.sha256,
        machines=tuple(sorted(known)) or (describe(document.machine),),
        ctx=document.settings.ctx,
        chunks=document.settings.chunks,
        corpora=corpora,
        measured=measured,
        failures={cell: one.failure for cell, one in cells.items() if one.failure},
        logits=document.settings.logits or STORED,  # of documents that are older, too
    )


def _cell(corpora: Mapping[str, str], cell: CellFields) -> ResultCell:
    return ResultCell(corpora[cell.corpus], configuration(cell))


def measured_of(cell: CellFields) -> Measured | None:
    """The inverse of `statistics` of the document, but for the errors of running means, which are not written.

    What was not finite, written as null, is nan. None where nothing was measured. Raises ValueError for means over
    chunks that are not equally many, and for figures that cannot be.
    """
    if cell.effective is None or cell.kld is None or cell.dp is None or cell.running is None:
        return None
    divergence = Divergence(
        **{of: _estimate(cell, name) for name, of in ESTIMATES.items()},
        correlation=_number(cell.ppl_correlation),
        kld=_quantiles(cell.kld),
        dp=_quantiles(cell.dp),
        running=_running(cell.running),
        positions=(),  # figures by position are not compared
    )
    return Measured(divergence, cell.effective, cell.seconds or 0.0, cell.machine or "")


def _number(value: float | None, name: str = "") -> float:
    """Raises ValueError for what no evaluation can have found."""
    if value is None:
        return math.nan
    if not (1 if name in PERPLEXITIES else -LARGEST) <= value <= LARGEST:
        raise ValueError(f"{value:g} is no {name or 'figure'}")
    return value


def _estimate(cell: CellFields, name: str) -> Estimate:
    return Estimate(_number(getattr(cell, name), name), _number(getattr(cell, f"{name}_error")))


def _quantiles(ranks: Mapping[str, object]) -> Quantiles:
    """The document's types say that these are numbers by percent of the tokens, `99.9%`."""
    found = ((float(percent.removesuffix("%")), cast("float | None", value)) for percent, value in ranks.items())
    return Quantiles(tuple((percent, _number(value)) for percent, value in found))


def _running(means: RunningFields) -> tuple[Running, ...]:
    columns = [[Estimate(_number(value, name)) for value in getattr(means, name)] for name in RUNNING]
    if len(set(map(len, columns))) > 1:
        raise ValueError("a cell has not as many chunks in one figure as in another")
    rows = zip(*columns, strict=True)
    return tuple(
        Running(chunk, **dict(zip(RUNNING.values(), row, strict=True))) for chunk, row in enumerate(rows, start=1)
    )
