"""Values of single chunks, recovered from printed running means, and intervals of paired differences.

llama-perplexity prints means over the chunks so far: chunk i has i * mean_i - (i - 1) * mean_{i-1}. A mean that is
printed with an error of at most h gives a chunk an error of at most (2i - 1) h. Errors of neighbours cancel: the mean
of all chunks is the last mean, so that rounding does not move an interval, and on average it widens it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from turbotool.evaluation.cell import Measured
from turbotool.programs.divergence import Running
from turbotool.programs.perplexity import scored
from turbotool.system.extras import require_library

CONFIDENCE = 0.95
FEWEST_CHUNKS = 2
HALF_4 = 0.5e-4  # of the last printed decimal
HALF_5 = 0.5e-5
HALF_6 = 0.5e-6
PERCENT = 100.0
HALF_PERCENT = 0.5e-3


@dataclass(frozen=True)
class Series:
    """A value for each chunk. What was printed is rounded: each is off by `bounds` at most, their mean by `bound`."""

    values: tuple[float, ...]
    bounds: tuple[float, ...]
    bound: float

    @property
    def is_finite(self) -> bool:
        return all(map(math.isfinite, self.values))


@dataclass(frozen=True)
class Interval:
    """The mean of `chunks` values, and where the true mean lies with `confidence` (Student's t, rounding added)."""

    mean: float
    low: float
    high: float
    confidence: float
    chunks: int

    @property
    def sign(self) -> int:
        """-1 or 1 if all of the interval lies on that side of 0; 0 within noise."""
        return (self.low > 0) - (self.high < 0)


def recover(means: Sequence[float], halves: Sequence[float]) -> Series:
    """The values whose running means these are; `halves` are the largest errors of the printed means."""
    sums = [number * mean for number, mean in enumerate(means, start=1)]
    errors = [number * half for number, half in enumerate(halves, start=1)]
    values = tuple(last - before for last, before in zip(sums, [0.0, *sums], strict=False))
    bounds = tuple(last + before for last, before in zip(errors, [0.0, *errors], strict=False))
    return Series(values, bounds, halves[-1])


def _means(measured: Measured, of: Callable[[Running], float], last: float) -> Series:
    """The last mean is printed once more, with six decimals."""
    rows = measured.divergence.running
    return recover([*map(of, rows[:-1]), last], [HALF_5] * (len(rows) - 1) + [HALF_6])


def kld(measured: Measured) -> Series:
    """Mean KLD of each chunk, in nats."""
    return _means(measured, lambda row: row.kld.value, measured.divergence.mean.value)


def ln_ratio(measured: Measured) -> Series:
    """ln(PPL / PPL of f16) of each chunk."""
    return _means(measured, lambda row: row.ln_ratio.value, measured.divergence.ln_ratio.value)


def ln_ppl(measured: Measured) -> Series:
    """ln(PPL) of each chunk. Perplexities are printed with four decimals, the last one once more with six."""
    ppls = [*(row.ppl.value for row in measured.divergence.running[:-1]), measured.divergence.ppl.value]
    halves = [HALF_4] * (len(ppls) - 1) + [HALF_6]
    return recover([math.log(ppl) for ppl in ppls], [half / ppl for half, ppl in zip(halves, ppls, strict=True)])


def squared_dp(measured: Measured) -> Series:
    """The mean square of the change of the right token's probability in each chunk, in squared percentage points."""
    roots = [row.rms_dp.value for row in measured.divergence.running]
    return recover([root**2 for root in roots], [(2 * root + HALF_PERCENT) * HALF_PERCENT for root in roots])


def same_top(measured: Measured, ctx: int) -> Series:
    """Tokens of each chunk whose likeliest successor is the same, in percent.

    They are counted, so that the exact number follows as long as rounding is smaller than half a token.
    """
    tokens = scored(ctx)
    found = recover([row.same_top.value for row in measured.divergence.running], _halves(measured, HALF_PERCENT))
    if not found.is_finite or max(found.bounds) * tokens >= PERCENT / 2:
        return found
    exact = tuple(PERCENT * round(value * tokens / PERCENT) / tokens for value in found.values)
    return Series(exact, (0.0,) * len(exact), 0.0)


def _halves(measured: Measured, half: float) -> list[float]:
    return [half] * len(measured.divergence.running)


def minus(one: Series, other: Series) -> Series:
    """The paired differences. Raises ValueError if there are not as many chunks in both."""
    values = tuple(a - b for a, b in zip(one.values, other.values, strict=True))
    return Series(values, tuple(a + b for a, b in zip(one.bounds, other.bounds, strict=True)), one.bound + other.bound)


def interval(series: Series, confidence: float = CONFIDENCE) -> Interval | None:
    """Where the mean lies; None for one chunk, which says nothing about others, and for values that are not finite."""
    from scipy import special  # imports in a third of the time of scipy.stats

    count = len(series.values)
    if count < FEWEST_CHUNKS or not series.is_finite:
        return None
    mean = math.fsum(series.values) / count
    standard_error = statistics.stdev(series.values) / math.sqrt(count)
    half = float(special.stdtrit(count - 1, (1 + confidence) / 2)) * standard_error + series.bound
    return Interval(mean, mean - half, mean + half, confidence, count)


def z(confidence: float = CONFIDENCE) -> float:
    """How many standard errors on both sides of a mean hold the true one, of very many values."""
    from scipy import special

    return float(special.ndtri((1 + confidence) / 2))


def require_scipy() -> None:
    """Raise ToolMissing with the command that installs it."""
    require_library("scipy>=1.10", "eval", "the statistics of an evaluation need")
