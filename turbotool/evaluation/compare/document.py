"""Two result sets side by side as one JSON document, without a folder in it."""

from __future__ import annotations

from dataclasses import dataclass

from turbotool.evaluation.compare.contrast import Contrast, Difference
from turbotool.evaluation.compare.results import ResultCell, ResultSet
from turbotool.evaluation.judge.interval import CONFIDENCE
from turbotool.evaluation.report.document import cache
from turbotool.evaluation.report.fields import Sides
from turbotool.kv.calibration import UNCALIBRATED
from turbotool.report.document import number
from turbotool.system import documents


@dataclass(frozen=True)
class NamedContent:
    """A model or a text by its name and the sha256 of its bytes."""

    name: str
    sha256: str


@dataclass(frozen=True)
class ResultBinaries:
    """The programs: `tree` is git's id of the tree that they were built from, if known; sha256 of all of them."""

    backend: str
    tree: str | None
    sha256: str


@dataclass(frozen=True)
class ResultSettings:
    """Tokens of a chunk, and the most chunks of a text."""

    ctx: int
    chunks: int


@dataclass(frozen=True)
class ResultSetFields:
    """What was measured, with what and where."""

    name: str
    model: NamedContent
    binaries: ResultBinaries
    machines: tuple[str, ...]
    corpora: tuple[NamedContent, ...]
    settings: ResultSettings


@dataclass(frozen=True)
class FactFields:
    """What A and B were measured with, where that differs."""

    what: str
    a: str
    b: str


@dataclass(frozen=True)
class EffectiveDifference:
    """A field of the effective configuration that differs, and in how many cells."""

    field: str
    a: str
    b: str
    cells: int


@dataclass(frozen=True, kw_only=True)
class DifferenceFields:
    """A statistic of the same cell in A and in B, b - a, and the interval that holds it with `confidence`.

    `low` and `high` are null where nothing tells of chance; `paired` says whether they are of differences over chunks.
    `finding` is the verdict in words: a difference is `at_least` as large, equal `within` a bound (both in `unit`), or
    unresolved until there are about `chunks_more`, 10000 standing for as many or more.
    """

    corpus: str
    k: str
    v: str
    rotation: Sides
    calibration: str = UNCALIBRATED.name
    calibration_sha256: str | None = None
    statistic: str
    a: float | None
    b: float | None
    difference: float | None
    low: float | None
    high: float | None
    confidence: float
    paired: bool
    verdict: str
    finding: str | None = None
    unit: str | None = None
    at_least: float | None = None
    within: float | None = None
    chunks_more: int | None = None


@dataclass(frozen=True, kw_only=True)
class LeftCell:
    """A cell that was not compared, and why."""

    corpus: str
    k: str
    v: str
    rotation: Sides
    calibration: str = UNCALIBRATED.name
    calibration_sha256: str | None = None
    reason: str


@documents.document("compare")
@dataclass(frozen=True)
class CompareDocument:
    """Two result sets: what they were measured with, what differs between them, and by how much at least.

    `refused` are cells that ran as another cache in the other set, `missing` those that only one set has.
    """

    ok: bool
    a: ResultSetFields
    b: ResultSetFields
    facts: tuple[FactFields, ...]
    effective: tuple[EffectiveDifference, ...]
    differences: tuple[DifferenceFields, ...]
    refused: tuple[LeftCell, ...]
    missing: tuple[LeftCell, ...]


def document(contrast: Contrast) -> CompareDocument:
    """The document of `turbotool eval compare --json`; what is not finite is null."""
    return CompareDocument(
        ok=True,
        a=_set(contrast.a),
        b=_set(contrast.b),
        facts=tuple(FactFields(*fact) for fact in contrast.facts),
        effective=tuple(EffectiveDifference(*field, cells) for field, cells in contrast.effective.items()),
        differences=tuple(map(difference_fields, contrast.differences)),
        refused=tuple(_left(contrast, cell, why) for cell, why in contrast.refused.items()),
        missing=tuple(_left(contrast, cell, why) for cell, why in contrast.missing.items()),
    )


def _set(found: ResultSet) -> ResultSetFields:
    return ResultSetFields(
        name=found.name,
        model=NamedContent(found.model, found.model_sha256),
        binaries=ResultBinaries(found.backend, found.tree or None, found.binaries),
        machines=found.machines,
        corpora=tuple(NamedContent(name, sha256) for sha256, name in found.corpora.items()),
        settings=ResultSettings(found.ctx, found.chunks),
    )


def difference_fields(found: Difference) -> DifferenceFields:
    """A difference with its interval and its verdict."""
    low, high = found.bounds or (None, None)
    said = found.finding
    return DifferenceFields(
        corpus=found.corpus,
        **cache(found.configuration),
        statistic=found.statistic.name,
        a=number(found.a),
        b=number(found.b),
        difference=number(found.difference),
        low=number(low),
        high=number(high),
        confidence=CONFIDENCE,
        paired=found.paired,
        verdict=found.verdict,
        finding=found.told,
        unit=found.statistic.unit,
        at_least=said.at_least if said else None,
        within=said.within if said else None,
        chunks_more=said.chunks_more if said else None,
    )


def _left(contrast: Contrast, cell: ResultCell, why: str) -> LeftCell:
    return LeftCell(corpus=contrast.corpus(cell), **cache(cell.configuration), reason=why)
