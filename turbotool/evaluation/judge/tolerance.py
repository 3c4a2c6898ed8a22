"""How much of f16's quality may be lost, and whether a measured cell stays inside of that."""

from __future__ import annotations

import math
from dataclasses import dataclass

from turbotool.evaluation.cell import Measured
from turbotool.evaluation.judge import stats as evalstats
from turbotool.evaluation.judge.finding import chunks_more
from turbotool.evaluation.judge.futility import Horizon, chance_below, logarithm, mirrored
from turbotool.evaluation.judge.interval import CONFIDENCE, Interval, log_interval, mean_interval

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
        kld, top = _intervals(measured, ctx, confidence)
        if kld is None or top is None:
            return Standing(OPEN, near)
        if kld.high <= self.mean_kld and top.low >= self.same_top:
            return Standing(INSIDE, near)
        if kld.low > self.mean_kld or top.high < self.same_top:
            return Standing(OUTSIDE)
        across = [(kld, self.mean_kld), (top, self.same_top)]
        needed = [chunks_more(one, abs(one.mean - edge)) for one, edge in across if one.low < edge < one.high]
        return Standing(OPEN, near, max(needed, default=None))

    def chance(self, measured: Measured, ctx: int, horizon: Horizon, seen: int = 0) -> float:
        """The chance, at most, that it is found inside over all chunks that there may be; `seen` as `chance_below`."""
        kld, top = _intervals(measured, ctx, CONFIDENCE)
        if kld is None or top is None:
            return 1.0
        is_positive = min(kld.low, self.mean_kld) > 0
        edge, found = (math.log(self.mean_kld), logarithm(kld)) if is_positive else (self.mean_kld, kld)
        of_kld = chance_below(edge, found, horizon, seen)
        return min(of_kld, chance_below(-self.same_top, mirrored(top), horizon, seen))

    def __str__(self) -> str:
        return f"mean KLD at most {self.mean_kld:g} nats and same top at least {self.same_top:g} %, errors included"


def _intervals(measured: Measured, ctx: int, confidence: float) -> tuple[Interval | None, Interval | None]:
    """Of the mean KLD and of the same top."""
    kld = log_interval(evalstats.kld(measured), confidence)
    return kld, mean_interval(evalstats.same_top(measured, ctx), confidence)
