"""A calibration as one JSON document."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import geometric_mean

from turbotool.calibration.calibration import CalibratedModel
from turbotool.calibration.check import KldCheck
from turbotool.calibration.statistics import LayerStatistics
from turbotool.programs.divergence import Divergence, Estimate
from turbotool.report.document import number, rounded
from turbotool.system import documents

DIGITS = 6  # significant ones


@dataclass(frozen=True)
class CalibratedLayer:
    """K of a layer: by which factor quantization noise is predicted to shrink, for each head and as their mean.

    `largest_share` is the part of a head's energy that its largest channel has, of the head where that is most.
    """

    layer: int
    gain: float
    heads: tuple[float, ...]
    largest_share_before: float
    largest_share_after: float


@dataclass(frozen=True)
class CheckedCache:
    """Divergence from f16 with standard errors over tokens: KLD in nats, perplexity, tokens of equal top in percent."""

    mean_kld: float | None
    mean_kld_error: float | None
    ppl: float | None
    ppl_error: float | None
    same_top: float | None
    same_top_error: float | None


@dataclass(frozen=True)
class CheckFields:
    """A cache on text that was held back, without and with the calibration; `ratio` is that of the mean KLDs.

    `verdict` is `better`, `worse` or `not resolved`.
    """

    k: str
    v: str
    ctx: int
    chunks: int
    off: CheckedCache
    on: CheckedCache
    ratio: float | None
    ratio_error: float | None
    verdict: str


@documents.document("calibrate")
@dataclass(frozen=True)
class CalibrateDocument:
    """A calibration that was measured: where it is, what it promises, and what the check on other text found.

    `calibration` is the file, which is a copy of the model if `embedded`; `fingerprint` is that of the model, `text`
    the hash of what was measured. `gain` is the mean over all heads. `check` is null if it was left out, `page` if
    no plots were drawn.
    """

    ok: bool
    model: str
    calibration: str
    embedded: bool
    replaced: bool
    corpora: tuple[str, ...]
    ctx: int
    sequences: int
    tokens: int
    positions: int
    fingerprint: str
    text: str
    gain: float
    layers: tuple[CalibratedLayer, ...]
    check: CheckFields | None
    page: str | None
    log: str
    command: str


def document(made: CalibratedModel) -> CalibrateDocument:
    """The document of `turbotool calibrate --json`."""
    found = made.statistics
    return CalibrateDocument(
        ok=True,
        model=str(made.model.path),
        calibration=str(made.target.path),
        embedded=made.target.embeds,
        replaced=made.target.replaces,
        corpora=tuple(path.name for path in made.texts),
        ctx=made.ctx,
        sequences=made.measured,
        tokens=found.n_tokens,
        positions=found.n_positions,
        fingerprint=found.model,
        text=found.text,
        gain=_digits(geometric_mean(found.gains)),
        layers=tuple(map(_layer, found.layers)),
        check=_check(made.check) if made.check else None,
        page=str(made.page) if made.page else None,
        log=str(made.log),
        command=made.command,
    )


def _layer(found: LayerStatistics) -> CalibratedLayer:
    before, after = (max(max(head) for head in found.shares(after=after)) for after in (False, True))
    return CalibratedLayer(
        layer=found.layer,
        gain=_digits(geometric_mean(found.gain)),
        heads=tuple(map(_digits, found.gain)),
        largest_share_before=_digits(before),
        largest_share_after=_digits(after),
    )


def _check(found: KldCheck) -> CheckFields:
    return CheckFields(
        k=found.pair.k,
        v=found.pair.v,
        ctx=found.ctx,
        chunks=found.chunks,
        off=_cache(found.before),
        on=_cache(found.after),
        ratio=rounded(found.ratio, DIGITS),
        ratio_error=rounded(found.ratio_error, DIGITS),
        verdict=found.verdict,
    )


def _cache(found: Divergence) -> CheckedCache:
    return CheckedCache(*_estimate(found.mean), *_estimate(found.ppl), *_estimate(found.same_top))


def _estimate(found: Estimate) -> tuple[float | None, float | None]:
    return number(found.value), number(found.error)


def _digits(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
