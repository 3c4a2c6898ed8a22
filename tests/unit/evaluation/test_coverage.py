"""How often intervals hold the truth, on simulated chunks of which it is known.

A chunk has a mean of its own, and 255 tokens that vary around it; what is known of them is what the program prints:
running means with five decimals, and one standard error over all tokens. The numbers are the same in every run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from turbotool.evaluation.judge.interval import Interval, log_interval, mean_interval, ratio_interval, scaled_interval
from turbotool.evaluation.judge.looks import Looks, doubling
from turbotool.evaluation.judge.stats import HALF_5, Series, recover

np = pytest.importorskip("numpy")
pytest.importorskip("scipy")
pytestmark = pytest.mark.slow  # thousands of trials each

TRIALS, TOKENS = 2000, 255
CHUNKS = (4, 8, 32)
NEAR = 0.02  # of 95 %, at eight chunks and more
TOKEN_SPREAD = 1.5  # standard deviation of the KLD of a token, by the mean of its chunk
MEAN_KLD = 0.01  # nats
Generator = Any  # of numpy, which is imported only where it is installed


def printed(means: Any, variance: float = 0.0) -> Series:
    """The series of one measurement from the means of its chunks, whose tokens have that variance on average."""
    running = np.cumsum(means) / np.arange(1, len(means) + 1)
    found = recover([round(float(mean), 5) for mean in running], [HALF_5] * len(means))
    error = math.sqrt((variance + float(means.var())) / (len(means) * TOKENS))
    return replace(found, error=error if variance else None)


def printed_klds(centres: Any, random: Generator) -> Series:
    """Of chunks whose tokens are positive and vary around these."""
    shape = TOKENS / TOKEN_SPREAD**2
    means = centres * random.gamma(shape, 1 / shape, len(centres))
    return printed(means, TOKEN_SPREAD**2 * float((centres**2).mean()))


def log_normal(spread: float) -> Callable[[Generator, int], Any]:
    return lambda random, count: np.exp(random.normal(-(spread**2) / 2, spread, count))


def contaminated(random: Generator, count: int) -> Any:
    """One chunk in ten is five times as bad: what few chunks do not show."""
    found = np.exp(random.normal(-0.045, 0.3, count)) * np.where(random.random(count) < 0.1, 5, 1)
    return found / 1.4


def covered(intervals: Sequence[Interval | None], truth: float) -> tuple[float, float, float]:
    """How often the truth is inside, above and below."""
    known = [one for one in intervals if one is not None]
    assert len(known) == len(intervals)
    above, below = (sum(one.high < truth for one in known), sum(one.low > truth for one in known))
    return 1 - (above + below) / len(known), above / len(known), below / len(known)


def of_klds(chunks: int, shape: Callable[[Generator, int], Any]) -> tuple[float, float, float]:
    random = np.random.default_rng(chunks)
    found = [log_interval(printed_klds(MEAN_KLD * shape(random, chunks), random)) for _ in range(TRIALS)]
    return covered(found, MEAN_KLD)


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("spread", [0.1, 0.3, 0.5, 0.8])
def test_intervals_of_a_mean_kld_hold_95_percent(chunks: int, spread: float) -> None:
    inside, _, below = of_klds(chunks, log_normal(spread))
    assert inside == pytest.approx(0.95, abs=NEAR if chunks >= 8 else 1.25 * NEAR)
    assert below <= 0.03, "what is told as the least is more than the truth"


@pytest.mark.parametrize("chunks", CHUNKS)
def test_with_outliers_among_chunks_the_upper_end_is_too_low_and_the_lower_one_holds(chunks: int) -> None:
    """No method sees what did not happen: without a bad chunk the mean is taken for less. `At least` holds."""
    inside, above, below = of_klds(chunks, contaminated)
    assert inside < 0.95 - NEAR
    assert above > 0.05
    assert below <= 0.025


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize(
    ("common", "own", "power"), [(0.3, 0.1, 1.0), (0.5, 0.2, 1.0), (0.5, 0.2, 0.5), (0.8, 0.3, 0.5)]
)
def test_intervals_of_a_ratio_of_klds_hold_95_percent(chunks: int, common: float, own: float, power: float) -> None:
    """Both caches find the same chunks hard, the second one by less where `power` is below 1."""
    random = np.random.default_rng(chunks)
    found = []
    for _ in range(TRIALS):
        shared = random.normal(0, 1, chunks)
        one, other = (
            MEAN_KLD * np.exp(size * shared - size**2 / 2) * log_normal(own)(random, chunks)
            for size in (common, power * common)
        )
        found.append(ratio_interval(printed_klds(2 * one, random), printed_klds(other, random)))
    inside, _, _ = covered(found, math.log(2))
    extreme = chunks < 8 or common > 0.5
    assert inside == pytest.approx(0.95, abs=1.25 * NEAR if extreme else NEAR)


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("between", [0.0, 0.5, 1.0, 2.0, 4.0])
def test_intervals_of_a_ratio_of_perplexities_hold_95_percent(chunks: int, between: float) -> None:
    """Chunks differ by so many standard errors of their tokens: from not at all to by nothing else."""
    random = np.random.default_rng(chunks)
    found = []
    for _ in range(TRIALS):
        noise = random.normal(0, 0.1 / math.sqrt(TOKENS), chunks)
        centres = 0.01 + random.normal(0, between * 0.1 / math.sqrt(TOKENS), chunks)
        found.append(mean_interval(printed(centres + noise, 0.1**2)))
    inside, _, _ = covered(found, 0.01)
    if between:
        assert inside == pytest.approx(0.95, abs=NEAR if chunks >= 8 else 1.25 * NEAR)
    else:  # t over chunks is taken where they happen to differ more
        assert 0.95 - NEAR <= inside <= 0.98


@pytest.mark.parametrize("chunks", CHUNKS)
def test_intervals_of_what_a_broken_cache_loses_hold_and_leave_out_zero(chunks: int) -> None:
    """KLD of 2 nats that varies by a factor of ten among chunks; a nat of it costs 0.85 of ln PPL, give or take 0.1."""
    random = np.random.default_rng(chunks)
    found, plain = [], []
    for _ in range(TRIALS):
        klds = 2 * log_normal(0.8)(random, chunks)
        lost = klds * random.normal(0.85, 0.1, chunks) + random.normal(0, 2 / math.sqrt(TOKENS), chunks)
        series = printed(lost)
        found.append(scaled_interval(series, printed_klds(klds, random)))
        plain.append(mean_interval(series))
    assert covered(found, 1.7)[0] >= 0.95 - NEAR
    resolved = [sum(one is not None and one.low > 0 for one in kind) / TRIALS for kind in (found, plain)]
    assert resolved[0] > 0.95
    assert resolved[0] >= resolved[1]


LOOKS = doubling(32)
PEEKING = Looks((32,))


def holds_at_all(looks: Looks, between: float) -> float:
    """How often the intervals of 4, 8, 16 and 32 chunks hold the truth all together."""
    random = np.random.default_rng(7)
    held = 0
    for _ in range(TRIALS):
        centres = MEAN_KLD * log_normal(between)(random, LOOKS.chunks[-1])
        shape = TOKENS / TOKEN_SPREAD**2
        means = centres * random.gamma(shape, 1 / shape, len(centres))
        variance = TOKEN_SPREAD**2 * float((centres**2).mean())
        each = [log_interval(printed(means[:count], variance), looks.at(count)) for count in LOOKS.chunks]
        held += all(one is not None and one.low <= MEAN_KLD <= one.high for one in each)
    return held / TRIALS


@pytest.mark.parametrize("between", [0.05, 0.3, 0.5])
def test_intervals_of_all_looks_hold_together_and_without_spending_they_would_not(between: float) -> None:
    assert holds_at_all(LOOKS, between) >= 0.95 - NEAR
    assert holds_at_all(PEEKING, between) < 0.95 - NEAR


def test_what_is_told_at_any_look_is_seldom_wrong() -> None:
    """Which of two caches has less KLD, one having 8 % more: one stops as soon as it is told."""
    random = np.random.default_rng(3)
    right, wrong, chunks = 0, 0, 0
    for _ in range(TRIALS):
        hard = MEAN_KLD * log_normal(0.4)(random, 32)
        one, other = (by * hard * log_normal(0.1)(random, 32) for by in (1.0, 1.08))
        for count in LOOKS.chunks:
            found = ratio_interval(printed(one[:count]), printed(other[:count]), LOOKS.at(count))
            if found is not None and found.sign:
                right, wrong, chunks = right + (found.sign < 0), wrong + (found.sign > 0), chunks + count
                break
    assert wrong <= 0.025 * TRIALS
    assert right > 0.5 * TRIALS
    assert chunks < 32 * (right + wrong)
