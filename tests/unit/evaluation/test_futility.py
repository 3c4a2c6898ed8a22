"""The chance that all chunks show what some of them leave open, against what chance does."""

from __future__ import annotations

import math

import pytest

from turbotool.evaluation.judge.futility import FUTILE, Horizon, chance_below, logarithm, mirrored
from turbotool.evaluation.judge.interval import CONFIDENCE, Interval, mean_interval
from turbotool.evaluation.judge.stats import Series

np = pytest.importorskip("numpy")
pytest.importorskip("scipy")
MOST, EDGE, TRIALS = 32, 0.5, 4000
ALL = Horizon(MOST, CONFIDENCE)


def interval(values: list[float]) -> Interval:
    found = mean_interval(Series(tuple(values), (0.0,) * len(values), 0.0))
    assert found
    return found


def trials(chunks: int, truth: float) -> list[tuple[float, bool]]:
    """The chance that some chunks of a true mean leave, and whether all of them lay below the edge in the end."""
    random = np.random.default_rng(5)
    every = random.normal(truth, 1.0, (TRIALS, MOST)).tolist()
    return [(chance_below(EDGE, interval(one[:chunks]), ALL), interval(one).high <= EDGE) for one in every]


@pytest.mark.slow
@pytest.mark.parametrize("chunks", [4, 8, 16])
@pytest.mark.parametrize("truth", [-0.2, 0.0, 0.15, 0.3])
def test_what_is_given_up_would_seldom_have_been_shown(chunks: int, truth: float) -> None:
    given_up = [shown for chance, shown in trials(chunks, truth) if chance < FUTILE]
    assert sum(given_up) <= 2 * FUTILE * TRIALS


@pytest.mark.slow
@pytest.mark.parametrize("chunks", [4, 8, 16])
def test_the_chance_is_how_often_it_happens(chunks: int) -> None:
    """Over truths of which none is likelier than another, as the prediction takes them."""
    random = np.random.default_rng(6)
    told: list[tuple[float, bool]] = []
    for truth in random.uniform(-4, 4, 3 * TRIALS):
        one = random.normal(truth, 1.0, MOST).tolist()
        told.append((chance_below(EDGE, interval(one[:chunks]), ALL), interval(one).high <= EDGE))
    for low, high in ((0.02, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 0.98)):
        bin_ = [(chance, shown) for chance, shown in told if low <= chance < high]
        expected = sum(chance for chance, _ in bin_)
        assert abs(sum(shown for _, shown in bin_) - expected) < 4 * math.sqrt(expected) + 0.05 * len(bin_)


def test_after_all_chunks_there_is_no_chance_left() -> None:
    every = interval([0.1, -0.1] * (MOST // 2))
    assert chance_below(every.high + 1e-9, every, ALL) == 1.0
    assert chance_below(every.high - 1e-9, every, ALL) == 0.0


def test_more_chunks_of_the_same_spread_make_it_clearer() -> None:
    found = interval([0.9, 0.1, 0.8, 0.4])
    chances = [chance_below(EDGE, found, ALL, seen) for seen in (0, 4, 8, 16, 32)]
    assert chances[0] == chances[1]
    assert chances[1:] == sorted(chances[1:], reverse=True)
    assert chances[-1] == 0.0


def test_chunks_without_spread_leave_no_doubt() -> None:
    assert chance_below(EDGE, interval([0.4] * 4), ALL) == 1.0
    assert chance_below(EDGE, interval([0.6] * 4), ALL) == 0.0


def test_an_interval_in_the_mirror_and_on_the_log_scale() -> None:
    found = Interval(2.0, 1.0, 4.0, CONFIDENCE, 8, 1.96)
    assert mirrored(found) == Interval(-2.0, -4.0, -1.0, CONFIDENCE, 8, 1.96)
    assert logarithm(found) == Interval(math.log(2), 0.0, math.log(4), CONFIDENCE, 8, 1.96)
