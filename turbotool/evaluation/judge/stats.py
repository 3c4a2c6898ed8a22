"""Values of single chunks, recovered from printed running means.

llama-perplexity prints means over the chunks so far: chunk i has i * mean_i - (i - 1) * mean_{i-1}. A mean that is
printed with an error of at most h gives a chunk an error of at most (2i - 1) h. Errors of neighbours cancel: the mean
of all chunks is the last mean, so that rounding does not move an interval, and on average it widens it.

One chunk has no others to vary from. Where its blocks of positions are known, functions take `blocks`, the tokens of a
chunk, and return a value for each block of its second half. Those vary by what stands in them and by where they stand,
but share what went before: an interval of them is one of this chunk alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from turbotool.evaluation.cell import Measured
from turbotool.programs.divergence import Estimate, Position, Running
from turbotool.programs.perplexity import scored
from turbotool.system.extras import require_library

HALF_4 = 0.5e-4  # of the last printed decimal
HALF_5 = 0.5e-5
HALF_6 = 0.5e-6
PERCENT = 100.0
HALF_PERCENT = 0.5e-3


@dataclass(frozen=True)
class Series:
    """A value for each chunk. What was printed is rounded: each is off by `bounds` at most, their mean by `bound`.

    `error` is the standard error of the mean over all tokens as the program prints it; None where it prints none.
    """

    values: tuple[float, ...]
    bounds: tuple[float, ...]
    bound: float
    error: float | None = None

    @property
    def is_finite(self) -> bool:
        return all(map(math.isfinite, self.values))

    def first(self, chunks: int) -> Series:
        """The first chunks alone, whose mean is as exact as it was printed after them; its error is not known."""
        if chunks >= len(self.values):
            return self
        return Series(self.values[:chunks], self.bounds[:chunks], self.bounds[chunks - 1] / (2 * chunks - 1))


def recover(means: Sequence[float], halves: Sequence[float]) -> Series:
    """The values whose running means these are; `halves` are the largest errors of the printed means."""
    sums = [number * mean for number, mean in enumerate(means, start=1)]
    errors = [number * half for number, half in enumerate(halves, start=1)]
    values = tuple(last - before for last, before in zip(sums, [0.0, *sums], strict=False))
    bounds = tuple(last + before for last, before in zip(errors, [0.0, *errors], strict=False))
    return Series(values, bounds, halves[-1])


def _means(measured: Measured, of: Callable[[Running], float], last: Estimate) -> Series:
    """The last mean is printed once more, with six decimals."""
    rows = measured.divergence.running
    found = recover([*map(of, rows[:-1]), last.value], [HALF_5] * (len(rows) - 1) + [HALF_6])
    return replace(found, error=_known(last.error))


def _known(error: float) -> float | None:
    """An error that was printed; 0 where the program prints none, nan where a document has none."""
    return error if math.isfinite(error) and error > 0 else None


def scored_blocks(measured: Measured, ctx: int) -> tuple[Position, ...]:
    """The blocks of positions of which all other figures are; empty where the program tells of none."""
    return tuple(one for one in measured.divergence.positions if one.begin >= ctx // 2 and one.tokens)


def of_one_chunk(measured: Measured, ctx: int) -> bool:
    """Whether there is a single chunk, of whose blocks there are figures."""
    return measured.chunks == 1 and len(scored_blocks(measured, ctx)) > 1


def _by_block(measured: Measured, ctx: int, of: Callable[[Position], float], error: float) -> Series:
    """A value for each block, weighted by its tokens: their mean is that of all tokens. Nothing is rounded."""
    found = scored_blocks(measured, ctx)
    share = len(found) / sum(one.tokens for one in found)
    return Series(tuple(share * one.tokens * of(one) for one in found), (0.0,) * len(found), 0.0, _known(error))


def kld(measured: Measured, blocks: int = 0) -> Series:
    """Mean KLD of each chunk, in nats."""
    if blocks:
        return _by_block(measured, blocks, lambda one: one.kld.value, measured.divergence.mean.error)
    return _means(measured, lambda row: row.kld.value, measured.divergence.mean)


def ln_ratio(measured: Measured, blocks: int = 0) -> Series:
    """ln(PPL / PPL of f16) of each chunk."""
    if blocks:
        return _by_block(measured, blocks, lambda one: one.ln_ratio.value, measured.divergence.ln_ratio.error)
    return _means(measured, lambda row: row.ln_ratio.value, measured.divergence.ln_ratio)


def ln_ppl(measured: Measured) -> Series:
    """ln(PPL) of each chunk. Perplexities are printed with four decimals, the last one once more with six."""
    ppls = [*(row.ppl.value for row in measured.divergence.running[:-1]), measured.divergence.ppl.value]
    halves = [HALF_4] * (len(ppls) - 1) + [HALF_6]
    return recover([math.log(ppl) for ppl in ppls], [half / ppl for half, ppl in zip(halves, ppls, strict=True)])


def squared_dp(measured: Measured) -> Series:
    """The mean square of the change of the right token's probability in each chunk, in squared percentage points."""
    roots = [row.rms_dp.value for row in measured.divergence.running]
    return recover([root**2 for root in roots], [(2 * root + HALF_PERCENT) * HALF_PERCENT for root in roots])


def same_top(measured: Measured, ctx: int, blocks: int = 0) -> Series:
    """Tokens of each chunk whose likeliest successor is the same, in percent.

    They are counted, so that the exact number follows as long as rounding is smaller than half a token.
    """
    if blocks:
        return _by_block(measured, blocks, lambda one: one.same_top.value, measured.divergence.same_top.error)
    tokens = scored(ctx)
    found = recover([row.same_top.value for row in measured.divergence.running], _halves(measured, HALF_PERCENT))
    error = _known(measured.divergence.same_top.error)
    if not found.is_finite or max(found.bounds) * tokens >= PERCENT / 2:
        return replace(found, error=error)
    exact = tuple(PERCENT * round(value * tokens / PERCENT) / tokens for value in found.values)
    return Series(exact, (0.0,) * len(exact), 0.0, error)


def lost_top(measured: Measured, ctx: int, blocks: int = 0) -> Series:
    """The same minus the 100 % of f16 beside itself: percentage points, 0 or less."""
    found = same_top(measured, ctx, blocks)
    return replace(found, values=tuple(value - PERCENT for value in found.values))


def _halves(measured: Measured, half: float) -> list[float]:
    return [half] * len(measured.divergence.running)


def paired(of: Callable[[Measured], Series], one: Measured, other: Measured) -> tuple[Series, Series]:
    """Both over the chunks that both have, which are the same tokens: every run begins where the text does."""
    if one.chunks == other.chunks:
        return of(one), of(other)
    chunks = min(one.chunks, other.chunks)
    return of(one).first(chunks), of(other).first(chunks)


def minus(one: Series, other: Series) -> Series:
    """The paired differences, whose error over tokens nobody prints.

    Raises ValueError if there are not as many chunks in both.
    """
    values = tuple(a - b for a, b in zip(one.values, other.values, strict=True))
    return Series(values, tuple(a + b for a, b in zip(one.bounds, other.bounds, strict=True)), one.bound + other.bound)


def require_scipy() -> None:
    """Raise ToolMissing with the command that installs it."""
    require_library("scipy>=1.10", "eval", "the statistics of an evaluation need")
