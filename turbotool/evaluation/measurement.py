"""A measurement as the store keeps it: a document, in which a figure that is not finite is the word for it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import msgspec

from turbotool.errors import DocumentError
from turbotool.evaluation.cell import Measured
from turbotool.kv.effective import Effective
from turbotool.programs.divergence import Divergence
from turbotool.system.documents import convert, document, encode, kind_of

Exact = float | Literal["nan", "inf", "-inf"]  # null would forget which


@dataclass(frozen=True)
class EstimateFields:
    """A value and its standard error."""

    value: Exact
    error: Exact


@dataclass(frozen=True)
class QuantileFields:
    """Percent of the tokens, and the value that they do not exceed."""

    points: tuple[tuple[float, Exact], ...]


@dataclass(frozen=True)
class RunningRow:
    """Means over all chunks up to `chunk` (from 1)."""

    chunk: int
    ppl: EstimateFields
    ln_ratio: EstimateFields
    kld: EstimateFields
    rms_dp: EstimateFields
    same_top: EstimateFields


@dataclass(frozen=True)
class PositionRow:
    """Tokens at positions from `begin` up to `end` of their chunks."""

    begin: int
    end: int
    tokens: int
    ln_ratio: EstimateFields
    kld: EstimateFields
    rms_dp: EstimateFields
    same_top: EstimateFields


@dataclass(frozen=True)
class DivergenceFields:
    """What the program printed, in the units of `Divergence`: nats, percent, percentage points.

    `positions` is empty where logits were stored, and in documents that are older.
    """

    ppl: EstimateFields
    ppl_base: EstimateFields
    correlation: Exact
    ln_ratio: EstimateFields
    ratio: EstimateFields
    difference: EstimateFields
    mean: EstimateFields
    kld: QuantileFields
    mean_dp: EstimateFields
    dp: QuantileFields
    rms_dp: EstimateFields
    same_top: EstimateFields
    running: tuple[RunningRow, ...]
    positions: tuple[PositionRow, ...] = ()


@document("measurement")
@dataclass(frozen=True)
class MeasurementDocument:
    """A cell that was measured: its comparison with f16, the configuration that ran, seconds, and on which machine.

    `machine` is empty for what turbotool 0.1.0 measured before it wrote that down. `peak` is the most memory that the
    run had resident, `logits` what stored logits of f16 took on the disk, in bytes; null where not known.
    """

    divergence: DivergenceFields
    effective: Effective
    seconds: float
    machine: str
    peak: int | None = None
    logits: int | None = None


def measurement(measured: Measured) -> MeasurementDocument:
    """What `restored` makes a measurement of."""
    divergence = msgspec.convert(_worded(asdict(measured.divergence)), DivergenceFields)
    return MeasurementDocument(
        divergence, measured.effective, measured.seconds, measured.machine, measured.peak, measured.logits
    )


def restored(found: MeasurementDocument) -> Measured:
    """The measurement that was written down, to the last bit."""
    divergence = msgspec.convert(_numbers(asdict(found.divergence)), Divergence)
    return Measured(divergence, found.effective, found.seconds, found.machine, found.peak, found.logits)


def _worded(value: Any) -> Any:
    """The value with a word for each number that is not finite."""
    if isinstance(value, Mapping):
        return {name: _worded(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_worded(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(value: Any) -> Any:
    """The inverse of `_worded`, where every text is such a word."""
    if isinstance(value, Mapping):
        return {name: _numbers(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_numbers(item) for item in value]
    return float(value) if isinstance(value, str) else value


def of_version_1(text: str) -> str | None:
    """A row of a store of version 1 as one of today: the same fields, then without a header, `NaN` for nan.

    None if it is damaged.
    """
    try:
        fields = _worded(json.loads(text))
        header = kind_of(MeasurementDocument).header
        found = convert({"machine": "", **fields, **header}, MeasurementDocument, "a row")
    except (ValueError, TypeError, RecursionError, DocumentError):
        return None
    return encode(found, indent=None).decode()
