"""What the figures say: each cell against OFF and against f16, and whether perplexity can be trusted on this model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from turbotool.evaluation.cell import Configuration, Measured
from turbotool.evaluation.judge import stats as evalstats
from turbotool.evaluation.judge.finding import (
    ALIKE,
    BETTER,
    NATS,
    PERCENT,
    POINTS,
    UNRESOLVED,
    WORSE,
    Equivalence,
    Finding,
    find,
)
from turbotool.evaluation.judge.interval import (
    CONFIDENCE,
    Interval,
    exp,
    log_interval,
    mean_interval,
    ratio_interval,
    scaled_interval,
)
from turbotool.evaluation.judge.looks import Looks
from turbotool.evaluation.judge.stats import Series, minus, paired
from turbotool.evaluation.measure.work import EvalLedger
from turbotool.evaluation.sweep import Corpus, Sweep
from turbotool.kv.cachetype import F16
from turbotool.kv.calibration import UNCALIBRATED

OFF, PLAIN, BASE = "off", "uncalibrated", "f16"
KLD, LN_RATIO, SAME_TOP = "mean_kld", "ln_ppl_ratio", "same_top"
BELOW = "below f16"  # of a perplexity, where it is no gain
BROKEN = 0.5  # nats of mean KLD, of which the loss on a chunk varies as much as the KLD itself
FEWEST_RANKED = 5  # cells; four in opposite order are chance in one case of twelve


@dataclass(frozen=True)
class Comparison:
    """One quantity of a cell beside that of another, which may be f16.

    `difference` is on the scale on which it is judged: ln of the ratio for KLD and perplexity, nats for the KLD against
    f16, percentage points for same top. `within` is, on the same scale, a difference that makes none. `kld` is the mean
    KLD in nats of the other cell, and 0 of f16. `blocks`: it is paired over blocks of positions of the only chunk, and
    about that chunk alone.
    """

    corpus: str
    configuration: Configuration
    against: str
    quantity: str
    difference: Interval | None
    within: float = 0.0
    kld: float = 0.0
    blocks: bool = False

    @property
    def unit(self) -> str:
        """Of what is told in words: percent for a logarithm."""
        if self.quantity == SAME_TOP:
            return POINTS
        return NATS if (self.quantity, self.against) == (KLD, BASE) else PERCENT

    @property
    def finding(self) -> Finding:
        """For same top more is better, for the others less.

        A perplexity below that of f16 is not called better: a quantized cache cannot know more than the exact one.
        """
        lower, higher = (WORSE, BETTER) if self.quantity == SAME_TOP else (BETTER, WORSE)
        if (self.against, self.quantity) == (BASE, LN_RATIO):
            lower = BELOW
        found = find(self.difference, self.within, self.unit, lower, higher)
        return replace(found, chunks_more=None, alone=True) if self.blocks else found

    @property
    def verdict(self) -> str:
        """The finding in one word."""
        return self.finding.word

    @property
    def plain(self) -> Interval | None:
        """The difference as documents have it: of KLDs in nats, with that of the other cell as it was measured."""
        found = self.difference
        if found is None or self.quantity != KLD or self.against == BASE:
            return found
        mean, low, high = (self.kld * (exp(value) - 1) for value in (found.mean, found.low, found.high))
        return replace(found, mean=mean, low=low, high=high)


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


def compare_all(sweep: Sweep, ledger: EvalLedger, looks: Looks, equal: Equivalence) -> tuple[Comparison, ...]:
    """Every rotated cell against OFF of its cache, every calibrated one against PLAIN, then every cell against f16."""
    return tuple(found for corpus in sweep.corpora for found in _compare(sweep, ledger, corpus, looks, equal))


def _compare(
    sweep: Sweep, ledger: EvalLedger, corpus: Corpus, looks: Looks, equal: Equivalence
) -> Iterator[Comparison]:
    cells = finite_cells(sweep, ledger, corpus)
    for configuration, measured in cells.items():
        others = {
            OFF: replace(configuration, rotation="off"),
            PLAIN: replace(configuration, calibration=UNCALIBRATED),
        }
        for against, other in others.items():
            if other != configuration and other in cells:
                kld, confidence = (
                    cells[other].divergence.mean.value,
                    looks.at(min(measured.chunks, cells[other].chunks)),
                )
                blocks = all(evalstats.of_one_chunk(one, sweep.ctx) for one in (measured, cells[other]))
                judged = _to_other(measured, cells[other], sweep.ctx, confidence, equal, sweep.ctx * blocks)
                for quantity, found, within in judged:
                    yield Comparison(corpus.name, configuration, against, quantity, found, within, kld, blocks)
    if sweep.noise(corpus)[0] in ledger.measured:
        for configuration, measured in cells.items():
            blocks = evalstats.of_one_chunk(measured, sweep.ctx)
            judged = _to_f16(measured, sweep.ctx, looks.at(measured.chunks), equal, sweep.ctx * blocks)
            for quantity, found, within in judged:
                yield Comparison(corpus.name, configuration, BASE, quantity, found, within, blocks=blocks)


Judged = tuple[str, Interval | None, float]  # quantity, interval, bound of equality


def _to_other(
    one: Measured, other: Measured, ctx: int, confidence: float, equal: Equivalence, blocks: int
) -> Iterator[Judged]:
    klds = paired(lambda measured: evalstats.kld(measured, blocks), one, other)
    worse = max(klds, key=lambda series: math.fsum(series.values))
    yield KLD, ratio_interval(*klds, confidence), equal.ln_kld
    ratio = minus(*paired(lambda measured: evalstats.ln_ratio(measured, blocks), one, other))
    yield LN_RATIO, ln_interval(ratio, worse, confidence), equal.ln_ppl
    top = minus(*paired(lambda measured: evalstats.same_top(measured, ctx, blocks), one, other))
    yield SAME_TOP, mean_interval(top, confidence), equal.same_top


def _to_f16(measured: Measured, ctx: int, confidence: float, equal: Equivalence, blocks: int) -> Iterator[Judged]:
    """The figures are differences from f16 as they are printed: that it has a KLD of 0, and itself for successor."""
    kld = evalstats.kld(measured, blocks)
    yield KLD, log_interval(kld, confidence), equal.ln_ppl
    yield LN_RATIO, ln_interval(evalstats.ln_ratio(measured, blocks), kld, confidence), equal.ln_ppl
    yield SAME_TOP, mean_interval(evalstats.lost_top(measured, ctx, blocks), confidence), equal.same_top


def ln_interval(ratio: Series, kld: Series, confidence: float = CONFIDENCE) -> Interval | None:
    """Where the mean of a logarithm of PPL ratios lies: by the KLD of the worse cache where that is broken."""
    if kld.is_finite and math.fsum(kld.values) >= BROKEN * len(kld.values):
        return scaled_interval(ratio, kld, confidence)
    return mean_interval(ratio, confidence)


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
        kld = ratio_interval(*paired(evalstats.kld, cells[one], cells[other]), confidence)
        ppl = mean_interval(minus(*paired(evalstats.ln_ratio, cells[one], cells[other])), confidence)
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
    """How many comparisons there are, what came of them, and how many intervals miss the truth by chance."""
    words = [one.verdict for one in found]
    equal, unresolved = words.count(ALIKE), words.count(UNRESOLVED)
    return (
        f"{len(found)} comparisons: {len(found) - equal - unresolved} with a difference, {equal} equal within their "
        f"bound, {unresolved} unresolved; each interval holds {CONFIDENCE:.0%}, so that about "
        f"{(1 - CONFIDENCE) * len(found):.1f} of them miss by chance"
    )
