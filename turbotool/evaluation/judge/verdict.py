"""What the figures say: each cell against OFF and against f16, and whether perplexity can be trusted on this model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from turbotool.evaluation.cell import Configuration, Measured
from turbotool.evaluation.judge import stats as evalstats
from turbotool.evaluation.judge.stats import CONFIDENCE, Interval, Series, interval, minus
from turbotool.evaluation.measure.work import EvalLedger
from turbotool.evaluation.sweep import Corpus, Sweep
from turbotool.kv.cachetype import F16
from turbotool.kv.calibration import UNCALIBRATED

OFF, PLAIN, BASE = "off", "uncalibrated", "f16"
KLD, LN_RATIO, SAME_TOP = "mean_kld", "ln_ppl_ratio", "same_top"
BETTER, WORSE, NOISE, UNKNOWN = "better", "worse", "within noise", "too few chunks"
BELOW = "below f16"  # of a perplexity, where it is no gain
FEWEST_RANKED = 5  # cells; four in opposite order are chance in one case of twelve


@dataclass(frozen=True)
class Comparison:
    """One quantity of a cell minus that of another: KLD in nats, ln(PPL ratio), same top in percentage points."""

    corpus: str
    configuration: Configuration
    against: str
    quantity: str
    difference: Interval | None

    @property
    def verdict(self) -> str:
        """Better or worse if the interval leaves out 0. For same top more is better, for the others less.

        A perplexity below that of f16 is not called better: a quantized cache cannot know more than the exact one.
        """
        if self.difference is None:
            return UNKNOWN
        if (self.against, self.quantity, self.difference.sign) == (BASE, LN_RATIO, -1):
            return BELOW
        sign = self.difference.sign if self.quantity == SAME_TOP else -self.difference.sign
        return {1: BETTER, 0: NOISE, -1: WORSE}[sign]


@dataclass(frozen=True)
class Perplexity:
    """Whether perplexity may be used to choose a cache for this model on this text, and if not, why."""

    corpus: str
    reasons: tuple[str, ...]

    @property
    def reliable(self) -> bool:
        return not self.reasons


Cells = dict[Configuration, Measured]


def finite_cells(sweep: Sweep, ledger: EvalLedger, corpus: Corpus) -> Cells:
    """What was measured on a text and is finite, the q4_0 control included, f16 not."""
    jobs = [job for job in sweep.jobs(corpus) if job.configuration.pair != F16 and job in ledger.measured]
    return {job.configuration: ledger.measured[job] for job in jobs if ledger.measured[job].is_finite}


def compare_all(sweep: Sweep, ledger: EvalLedger) -> tuple[Comparison, ...]:
    """Every rotated cell against OFF of its cache, every calibrated one against PLAIN, then every cell against f16."""
    return tuple(found for corpus in sweep.corpora for found in _compare(sweep, ledger, corpus))


def _compare(sweep: Sweep, ledger: EvalLedger, corpus: Corpus) -> Iterator[Comparison]:
    cells = finite_cells(sweep, ledger, corpus)
    floor = ledger.measured.get(sweep.noise(corpus)[0])
    for configuration, measured in cells.items():
        others = {
            OFF: replace(configuration, rotation="off"),
            PLAIN: replace(configuration, calibration=UNCALIBRATED),
        }
        for against, other in others.items():
            if other != configuration and other in cells:
                for quantity, mine, theirs in _series(measured, cells[other], sweep.ctx):
                    yield Comparison(corpus.name, configuration, against, quantity, interval(minus(mine, theirs)))
    for configuration, measured in cells.items():
        if floor is not None:
            for quantity, mine, theirs in _series(measured, floor, sweep.ctx):
                yield Comparison(corpus.name, configuration, BASE, quantity, interval(minus(mine, theirs)))


def _series(one: Measured, other: Measured, ctx: int) -> Iterator[tuple[str, Series, Series]]:
    yield KLD, evalstats.kld(one), evalstats.kld(other)
    yield LN_RATIO, evalstats.ln_ratio(one), evalstats.ln_ratio(other)
    yield SAME_TOP, evalstats.same_top(one, ctx), evalstats.same_top(other, ctx)


def judge_perplexity(cells: Cells, corpus: str) -> Perplexity:
    """Unreliable if a cell scores below f16 beyond its error, or if perplexity and KLD rank cells in opposite order."""
    return Perplexity(corpus, (*_below_f16(cells), *_opposite_pairs(cells), *_opposite_ranks(cells)))


def _below_f16(cells: Cells) -> Iterator[str]:
    """One-sided, by the standard error over tokens of the paired ratio; 5 % that any cell is accused wrongly."""
    from scipy import special

    for configuration, measured in cells.items():
        found = measured.divergence.ln_ratio
        limit = float(special.ndtri(1 - (1 - CONFIDENCE) / len(cells))) * found.error
        if found.error > 0 and found.value < -limit:
            ppl, base = measured.divergence.ppl.value, measured.divergence.ppl_base.value
            yield (
                f"{configuration} scores {ppl:.6g}, below f16's {base:.6g} ({ppl / base - 1:+.1%}): "
                f"ln ratio {found.value:.4f}, beyond {limit:.4f}"
            )


def _opposite_pairs(cells: Cells) -> Iterator[str]:
    """Pairs of cells whose paired differences in KLD and in perplexity both leave noise, with opposite signs."""
    pairs = list(combinations(cells, 2))
    for one, other in pairs:
        confidence = 1 - (1 - CONFIDENCE) / (2 * len(pairs))
        kld, ppl = (
            interval(minus(of(cells[one]), of(cells[other])), confidence) for of in (evalstats.kld, evalstats.ln_ratio)
        )
        if kld and ppl and kld.sign * ppl.sign < 0:
            low, high = (one, other) if kld.sign < 0 else (other, one)
            yield f"{low} has the lower KLD but the higher perplexity than {high}, both beyond noise"


def _opposite_ranks(cells: Cells) -> Iterator[str]:
    """Kendall's rank correlation of perplexity and KLD over all cells is negative beyond chance."""
    ppls = [measured.divergence.ppl.value for measured in cells.values()]
    klds = [measured.divergence.mean.value for measured in cells.values()]
    same_order = sum(
        math.copysign(1, (a - b) * (x - y)) * ((a - b) * (x - y) != 0)
        for (a, x), (b, y) in combinations(zip(ppls, klds, strict=True), 2)
    )
    if len(cells) < FEWEST_RANKED or same_order >= 0:
        return
    from scipy import stats  # slow to import, and rarely needed

    found = stats.kendalltau(ppls, klds)
    if found.pvalue < 1 - CONFIDENCE:
        yield (
            f"perplexity and KLD rank the {len(cells)} cells in opposite order: Kendall's tau {found.statistic:.2f}, "
            f"p = {found.pvalue:.3f}"
        )


def judge(sweep: Sweep, ledger: EvalLedger) -> tuple[Perplexity, ...]:
    """For every text."""
    return tuple(judge_perplexity(finite_cells(sweep, ledger, corpus), corpus.name) for corpus in sweep.corpora)


def summary(found: Sequence[Comparison]) -> str:
    """How many comparisons there are, and how many of them leave noise by chance."""
    return (
        f"{len(found)} comparisons, each with an interval that holds {CONFIDENCE:.0%}: about "
        f"{(1 - CONFIDENCE) * len(found):.1f} of them leave noise by chance"
    )
