"""Where the mean of a quantity lies, from a few chunks of it.

The chunks vary by what is in them and by the tokens that each happens to have. Student's t over chunks takes both into
account, but four of them leave it three degrees of freedom. The standard error over tokens, which llama-perplexity
prints, rests on hundreds of them and leaves out how chunks differ. So the tokens' error, and its normal quantile, is
used where chunks vary no more than their tokens explain, and t over chunks everywhere else.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from turbotool.evaluation.judge.stats import Series

CONFIDENCE = 0.95
FEWEST_CHUNKS = 2
LARGEST = 700.0  # logarithm of a number that floats can still have
FEWEST_TRUSTED = 4  # chunks, of which a small spread is no mere luck; of fewer the wider of both intervals is taken


@dataclass(frozen=True)
class Interval:
    """The mean of `chunks` values, and where the true mean lies with `confidence`, rounding included.

    `quantile` is how many standard errors it takes to each side; None where that is Student's of so many chunks.
    """

    mean: float
    low: float
    high: float
    confidence: float
    chunks: int
    quantile: float | None = None

    @property
    def sign(self) -> int:
        """-1 or 1 if all of the interval lies on that side of 0; 0 if it holds 0."""
        return (self.low > 0) - (self.high < 0)

    @property
    def nearest(self) -> float:
        """How far the end that is nearest to 0 is from it; 0 if the interval holds 0."""
        return max(self.low, -self.high, 0.0)


def exp(logarithm: float) -> float:
    """The number with that logarithm, or the largest that there is; two chunks may leave any uncertainty."""
    return math.exp(min(logarithm, LARGEST))


def z(confidence: float = CONFIDENCE) -> float:
    """How many standard errors on both sides of a mean hold the true one, of very many values."""
    from scipy import special

    return float(special.ndtri((1 + confidence) / 2))


def student_t(chunks: int, confidence: float = CONFIDENCE) -> float:
    """The same of so many chunks, whose spread is known from themselves alone."""
    from scipy import special  # imports in a third of the time of scipy.stats

    return float(special.stdtrit(chunks - 1, (1 + confidence) / 2))


def mean_interval(series: Series, confidence: float = CONFIDENCE) -> Interval | None:
    """Where the mean lies; None for one chunk, which says nothing about others, and for values that are not finite."""
    if not _usable(series):
        return None
    count, mean = len(series.values), statistics.fmean(series.values)
    error = statistics.stdev(series.values) / math.sqrt(count)
    quantile, error = _widest(error, series.error, count, confidence)
    half = quantile * error + series.bound
    return Interval(mean, mean - half, mean + half, confidence, count, quantile)


def log_interval(series: Series, confidence: float = CONFIDENCE) -> Interval | None:
    """Where the mean of a positive, skewed quantity lies: symmetric on the log scale, in the unit of the quantity.

    Cox's interval of the mean of a log-normal quantity with Student's quantile (Olsson 2005, Journal of Statistics
    Education 13(1)), but about the mean itself, and never narrower than what follows from the spread of the values.
    Falls back to `mean_interval` for a mean that rounding does not tell from 0.
    """
    if not _usable(series):
        return None
    count, mean = len(series.values), statistics.fmean(series.values)
    if mean <= series.bound:
        return mean_interval(series, confidence)
    relative = statistics.stdev(series.values) / mean
    variance = statistics.variance(_logs(series)) if _has_logs(series) else math.log1p(relative**2)
    error = max(_cox(variance, variance**2, count), relative / math.sqrt(count))
    tokens = series.error / mean if series.error else None
    quantile, error = _widest(error, tokens, count, confidence)
    growth = exp(quantile * error)
    return Interval(mean, mean / growth - series.bound, mean * growth + series.bound, confidence, count, quantile)


def ratio_interval(one: Series, other: Series, confidence: float = CONFIDENCE) -> Interval | None:
    """Where ln(mean of one / mean of the other) lies, of two positive quantities paired by chunk.

    With Student's t and the root mean square of two standard errors: that of the delta method, which is too small for a
    few skewed values, and Cox's for log-normal quantities, which is too large for two that vary together. None where a
    mean is not told from 0 by rounding. Raises ValueError if there are not as many chunks in both.
    """
    pairs = list(zip(one.values, other.values, strict=True))
    if not (_usable(one) and _usable(other)):
        return None
    count, means = len(pairs), (statistics.fmean(one.values), statistics.fmean(other.values))
    if means[0] <= one.bound or means[1] <= other.bound:
        return None
    error = statistics.stdev(a / means[0] - b / means[1] for a, b in pairs) / math.sqrt(count)
    if _has_logs(one) and _has_logs(other):
        error = math.sqrt((error**2 + _cox_of_ratio(_logs(one), _logs(other)) ** 2) / 2)
    half = student_t(count, confidence) * error + one.bound / means[0] + other.bound / means[1]
    ratio = math.log(means[0] / means[1])
    return Interval(ratio, ratio - half, ratio + half, confidence, count)


def scaled_interval(series: Series, by: Series, confidence: float = CONFIDENCE) -> Interval | None:
    """Where the mean of a quantity lies that grows with another, positive one from chunk to chunk.

    The ratio of the two (Cochran, Sampling Techniques, chapter 6) times the other one on the log scale; each has half
    of the chance of being wrong. A broken cache loses ten times more on one chunk than on another, so that t over
    chunks cannot tell its loss from 0; what it loses for each nat of KLD hardly varies.
    """
    halved = 1 - (1 - confidence) / 2
    scale = log_interval(by, halved)
    if scale is None or not _usable(series):
        return None
    count = scale.chunks
    slope = math.fsum(series.values) / math.fsum(by.values)
    residuals = [value - slope * size for value, size in zip(series.values, by.values, strict=True)]
    error = statistics.stdev(residuals) / math.sqrt(count) / scale.mean
    half = student_t(count, halved) * error + series.bound / scale.mean
    corners = [ratio * size for ratio in (slope - half, slope + half) for size in (scale.low, scale.high)]
    return Interval(slope * scale.mean, min(corners), max(corners), confidence, count)


def _usable(series: Series) -> bool:
    return len(series.values) >= FEWEST_CHUNKS and series.is_finite


def _widest(chunks: float, tokens: float | None, count: int, confidence: float) -> tuple[float, float]:
    """The quantile and the standard error that it belongs to, of those over chunks and, if known, over tokens."""
    over_chunks, over_tokens = (student_t(count, confidence), chunks), (z(confidence), tokens or 0.0)
    if count < FEWEST_TRUSTED:
        return max(over_chunks, over_tokens, key=math.prod)
    return over_tokens if chunks <= over_tokens[1] else over_chunks


def _cox(variance: float, squares: float, count: int) -> float:
    """The standard error of the logarithm of a log-normal mean, from the variance of the logarithms."""
    return math.sqrt(variance / count + max(squares, 0.0) / (2 * (count - 1)))


def _cox_of_ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """The same of the ratio of two means, from logarithms that vary together."""
    a, b = statistics.variance(one), statistics.variance(other)
    apart = statistics.variance([x - y for x, y in zip(one, other, strict=True)])
    together = (a + b - apart) / 2
    return _cox(apart, a**2 + b**2 - 2 * together**2, len(one))


def _has_logs(series: Series) -> bool:
    """Whether every value is told from 0 by rounding."""
    return all(value > bound for value, bound in zip(series.values, series.bounds, strict=True)) and all(
        value > 0 for value in series.values
    )


def _logs(series: Series) -> list[float]:
    return [math.log(value) for value in series.values]
