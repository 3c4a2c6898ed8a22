"""What an interval says in words: better or worse by at least so much, equal within a bound, or unresolved."""

from __future__ import annotations

import math
from dataclasses import dataclass

from turbotool.evaluation.judge.interval import LARGEST, Interval, student_t
from turbotool.evaluation.planfile import EQUAL

BETTER, WORSE, ALIKE, UNRESOLVED = "better", "worse", "equal", "unresolved"
PERCENT, NATS, POINTS = "%", "nats", "points"  # units; what is told in percent is the logarithm of a ratio
MOST_CHUNKS = 10_000  # of which it makes sense to say that they would resolve something
FIGURES = 2  # significant ones of a bound


@dataclass(frozen=True)
class Equivalence:
    """Differences that make none: KLD and perplexity in percent of the other one, same top in percentage points.

    Of a KLD against f16, which has none, it is the bound of perplexity in nats: on text as f16 expects it, the
    logarithm of the ratio of perplexities is the KLD.
    """

    kld: float = EQUAL["equal_kld"]
    ppl: float = EQUAL["equal_ppl"]
    same_top: float = EQUAL["equal_top"]

    def __str__(self) -> str:
        return f"KLD within {self.kld:g} %, PPL within {self.ppl:g} %, same top within {self.same_top:g} points"

    @property
    def ln_kld(self) -> float:
        return math.log1p(self.kld / 100)

    @property
    def ln_ppl(self) -> float:
        return math.log1p(self.ppl / 100)


@dataclass(frozen=True)
class Finding:
    """A verdict. `word` is one of those above, or of those that a comparison has for lower and higher.

    `at_least` is how far the nearer end of the interval is from no difference, `within` the bound of equality, both in
    `unit`; `chunks_more` is how many more would resolve it, MOST_CHUNKS for as many or more, and None if it is resolved
    or if nothing is known of how chunks differ. `alone`: it is about one chunk, not about others of the text.
    """

    word: str
    unit: str
    at_least: float | None = None
    within: float | None = None
    chunks_more: int | None = None
    alone: bool = False

    def __str__(self) -> str:
        where = " in this chunk" if self.alone else ""
        if self.at_least is not None:
            return f"{self.word} by at least {_amount(floored(self.at_least), self.unit)}{where}"
        if self.within is not None:
            return f"{self.word} within {_amount(f'{self.within:.3g}', self.unit)}{where}"
        return f"{self.word}{where}: {_more(self.chunks_more)}"


def find(interval: Interval | None, within: float, unit: str, lower: str, higher: str) -> Finding:
    """What an interval says of a difference. `within` is in its scale; `lower` and `higher` are words for its sides."""
    if interval is None:
        return Finding(UNRESOLVED, unit)
    if -within <= interval.low and interval.high <= within:
        return Finding(ALIKE, unit, within=_in_unit(within, unit))
    if interval.sign:
        nearest = math.copysign(interval.nearest, interval.sign)
        return Finding(higher if interval.sign > 0 else lower, unit, at_least=abs(_in_unit(nearest, unit)))
    target = max(abs(interval.mean), within - abs(interval.mean))
    return Finding(UNRESOLVED, unit, chunks_more=chunks_more(interval, target))


def chunks_more(interval: Interval, target: float) -> int:
    """How many more chunks of the same spread make half of the interval as small as `target`, MOST_CHUNKS at most."""
    half = (interval.high - interval.low) / 2
    used = interval.quantile or student_t(interval.chunks, interval.confidence)
    spread = half / used * math.sqrt(interval.chunks)
    low, high = interval.chunks, MOST_CHUNKS
    if target <= 0 or student_t(high, interval.confidence) * spread / math.sqrt(high) > target:
        return MOST_CHUNKS
    while high - low > 1:
        middle = (low + high) // 2
        enough = student_t(middle, interval.confidence) * spread / math.sqrt(middle) <= target
        low, high = (low, middle) if enough else (middle, high)
    return high - interval.chunks


def floored(amount: float) -> str:
    """An amount with two significant figures, rounded down: what is at least that much."""
    if amount <= 0 or not math.isfinite(amount):
        return f"{amount:g}"
    digits = FIGURES - 1 - math.floor(math.log10(amount))
    scaled = math.floor(amount * 10.0**digits * (1 + 1e-12)) / 10.0**digits
    return f"{scaled:.{max(0, digits)}f}"


def _in_unit(value: float, unit: str) -> float:
    return 100 * math.expm1(min(value, LARGEST)) if unit == PERCENT else value


def _amount(number: str, unit: str) -> str:
    return f"{number} point" if (number, unit) == ("1", POINTS) else f"{number} {unit}"


def _more(chunks: int | None) -> str:
    if chunks is None:
        return "too few chunks"
    if chunks >= MOST_CHUNKS:
        return f"{MOST_CHUNKS} chunks more are too few"
    return f"about {chunks} chunk{'s' * (chunks != 1)} more"
