"""Whether more chunks may yet show what fewer of them leave open.

Whoever may measure a given number of chunks at most need not go on where so many would hardly show it: trials that are
watched while they run call that stopping for futility (Lan, Simon and Halperin 1982, Communications in Statistics C 1).
The mean over all chunks is predicted from those that there are, as Student's t predicts a mean of chunks to come.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from turbotool.evaluation.judge.interval import Interval, student_t

FUTILE = 0.025  # a smaller chance, that of either end of a 95 % interval to be wrong, is not worth more chunks


@dataclass(frozen=True)
class Horizon:
    """The most chunks that there may be, and the confidence of an interval over all of them."""

    chunks: int
    confidence: float


def chance_below(edge: float, found: Interval, horizon: Horizon, seen: int = 0) -> float:
    """The chance that the interval over all chunks lies below an edge, by the spread of those in `found`.

    `seen` asks what the chance will be after so many chunks, if their mean and spread stay as they are.
    """
    error = (found.high - found.mean) / (found.quantile or student_t(found.chunks, found.confidence))
    seen = min(max(seen, found.chunks), horizon.chunks)
    deviation = error * math.sqrt(found.chunks)  # of a chunk
    last = found.mean + student_t(horizon.chunks, horizon.confidence) * deviation / math.sqrt(horizon.chunks)
    spread = deviation * math.sqrt(1 / seen - 1 / horizon.chunks)
    if spread == 0:
        return float(last <= edge)
    from scipy import special

    return float(special.stdtr(seen - 1, (edge - last) / spread))


def mirrored(found: Interval) -> Interval:
    """The interval of the negative: what lies below an edge there is above it here."""
    return Interval(-found.mean, -found.high, -found.low, found.confidence, found.chunks, found.quantile)


def logarithm(found: Interval) -> Interval:
    """The interval of the logarithm of a quantity that is positive in all of it."""
    mean, low, high = map(math.log, (found.mean, found.low, found.high))
    return Interval(mean, low, high, found.confidence, found.chunks, found.quantile)
