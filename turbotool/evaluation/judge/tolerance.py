"""How much of f16's quality may be lost, and whether a measured cell stays inside of that."""

from __future__ import annotations

from dataclasses import dataclass

from turbotool.evaluation.cell import Measured
from turbotool.evaluation.judge import stats as evalstats
from turbotool.evaluation.judge.finding import chunks_more
from turbotool.evaluation.judge.interval import CONFIDENCE, log_interval, mean_interval

INSIDE, OUTSIDE, OPEN = "inside", "outside", "open"


@dataclass(frozen=True)
class Standing:
    """Where a cell is, intervals included. `near`: its figures alone are inside; `chunks_more` would tell."""

    state: str
    near: bool = False
    chunks_more: int | None = None


@dataclass(frozen=True)
class Tolerance:
    """How much of f16's quality may be lost: mean KLD in nats at most, same top in percent at least."""

    mean_kld: float = 0.02
    same_top: float = 93.0

    def standing(self, measured: Measured, ctx: int, confidence: float = CONFIDENCE) -> Standing:
        """Inside if both intervals are, outside if one of them is wholly outside. One chunk leaves everything open."""
        found = measured.divergence
        near = found.mean.value <= self.mean_kld and found.same_top.value >= self.same_top
        kld = log_interval(evalstats.kld(measured), confidence)
        top = mean_interval(evalstats.same_top(measured, ctx), confidence)
        if kld is None or top is None:
            return Standing(OPEN, near)
        if kld.high <= self.mean_kld and top.low >= self.same_top:
            return Standing(INSIDE, near)
        if kld.low > self.mean_kld or top.high < self.same_top:
            return Standing(OUTSIDE)
        across = [(kld, self.mean_kld), (top, self.same_top)]
        needed = [chunks_more(one, abs(one.mean - edge)) for one, edge in across if one.low < edge < one.high]
        return Standing(OPEN, near, max(needed, default=None))

    def __str__(self) -> str:
        return f"mean KLD at most {self.mean_kld:g} nats and same top at least {self.same_top:g} %, errors included"
