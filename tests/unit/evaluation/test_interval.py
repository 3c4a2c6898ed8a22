"""Intervals of means, of positive quantities and of ratios, on values that are known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turbotool.evaluation.judge.interval import (
    Interval,
    log_interval,
    mean_interval,
    ratio_interval,
    scaled_interval,
    student_t,
    z,
)
from turbotool.evaluation.judge.stats import Series, minus

stats = pytest.importorskip("scipy.stats")


def exact(*values: float, error: float | None = None) -> Series:
    return Series(values, (0.0,) * len(values), 0.0, error)


def ends(found: Interval | None) -> tuple[float, float]:
    assert found is not None
    return found.low, found.high


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5)), min_size=2, max_size=30), st.sampled_from([0.9, 0.95]))
def test_an_interval_is_that_of_the_paired_t_test(pairs: list[tuple[float, float]], confidence: float) -> None:
    one, other = (exact(*values) for values in zip(*pairs, strict=True))
    found = mean_interval(minus(one, other), confidence)
    differences = [a - b for a, b in pairs]
    assert found is not None
    if len(set(differences)) > 1:
        theirs = stats.ttest_rel(one.values, other.values).confidence_interval(confidence)
        assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert found.mean == pytest.approx(math.fsum(differences) / len(differences), abs=1e-9)


def test_rounding_is_part_of_the_interval() -> None:
    found = mean_interval(minus(Series((1.0, 1.0), (0.1, 0.3), 0.1), Series((1.0, 1.0), (0.1, 0.3), 0.1)))
    assert found is not None
    assert (found.low, found.high, found.sign) == (-0.2, 0.2, 0)


@pytest.mark.parametrize(("values", "sign"), [((1, 1.1, 0.9), 1), ((-1, -1.1, -0.9), -1), ((1, -1, 0.1), 0)])
def test_the_sign_is_that_of_the_whole_interval(values: tuple[float, ...], sign: int) -> None:
    found = mean_interval(exact(*values))
    assert found is not None
    assert found.sign == sign


def test_one_chunk_and_what_is_not_finite_have_no_interval() -> None:
    assert mean_interval(exact(1.0)) is None
    assert mean_interval(exact(1.0, math.nan)) is None


def test_quantiles_are_those_of_the_distributions() -> None:
    assert student_t(4) == pytest.approx(stats.t(3).ppf(0.975))
    assert z(0.99) == pytest.approx(stats.norm.ppf(0.995))


def test_tokens_tell_where_chunks_differ_no_more_than_their_tokens_explain() -> None:
    """Four chunks with a standard error of 0.1: t of 3 degrees of freedom takes 3.18 of them, tokens 1.96 of theirs."""
    values = (1.0 - 0.1 * math.sqrt(3), 1.0 + 0.1 * math.sqrt(3)) * 2
    assert ends(mean_interval(exact(*values))) == pytest.approx((1 - 0.31824, 1 + 0.31824), abs=1e-4)
    assert ends(mean_interval(exact(*values, error=0.12))) == pytest.approx((1 - 0.12 * z(), 1 + 0.12 * z()))
    assert mean_interval(exact(*values, error=0.09)) == mean_interval(exact(*values))


def test_of_two_or_three_chunks_a_small_spread_is_luck_and_the_wider_interval_counts() -> None:
    assert ends(mean_interval(exact(1.0, 1.02, error=0.01))) == ends(mean_interval(exact(1.0, 1.02)))
    assert ends(mean_interval(exact(1.0, 1.0, error=0.1))) == pytest.approx((1 - 0.1 * z(), 1 + 0.1 * z()))


@given(st.lists(st.floats(0.001, 10), min_size=2, max_size=40))
def test_a_positive_quantity_stays_positive_and_lies_around_its_mean(values: list[float]) -> None:
    low, high = ends(log_interval(exact(*values)))
    mean = math.fsum(values) / len(values)
    assert 0 < low <= mean * (1 + 1e-9)
    assert high >= mean * (1 - 1e-9)
    assert low * high == pytest.approx(mean**2, rel=1e-6) or high > 1e100


def test_the_interval_of_a_log_normal_mean_is_that_of_cox() -> None:
    """Olsson's: variance / n + variance squared / 2 (n - 1), with the quantile of t; here about the mean itself."""
    logs = [0.0, 0.5, -0.4, 0.2, -0.3]
    variance = stats.tvar(logs)
    half = student_t(5) * math.sqrt(variance / 5 + variance**2 / 8)
    mean = math.fsum(map(math.exp, logs)) / 5
    found = ends(log_interval(exact(*map(math.exp, logs))))
    assert found == pytest.approx((mean * math.exp(-half), mean * math.exp(half)))


def test_a_mean_that_rounding_does_not_tell_from_zero_has_a_plain_interval() -> None:
    series = Series((1e-5, -1e-5, 1e-5, 0.0), (1e-5,) * 4, 1e-5)
    assert log_interval(series) == mean_interval(series)
    assert ratio_interval(series, exact(1.0, 1.0, 1.0, 1.0)) is None


@given(
    st.lists(st.tuples(st.floats(0.001, 5), st.floats(0.001, 5)), min_size=2, max_size=20),
    st.floats(0.01, 100),
)
def test_a_ratio_turns_round_with_its_parts_and_does_not_depend_on_the_unit(
    pairs: Sequence[tuple[float, float]], unit: float
) -> None:
    one, other = (exact(*values) for values in zip(*pairs, strict=True))
    low, high = ends(ratio_interval(one, other))
    assert ends(ratio_interval(other, one)) == pytest.approx((-high, -low), rel=1e-6, abs=1e-6)
    first, second = (exact(*(value * unit for value in series.values)) for series in (one, other))
    assert ends(ratio_interval(first, second)) == pytest.approx((low, high), rel=1e-6, abs=1e-6)


def test_chunks_that_agree_on_a_ratio_tell_it_whatever_their_size() -> None:
    found = ratio_interval(exact(0.01, 0.1, 1.0), exact(0.02, 0.2, 2.0))
    assert ends(found) == pytest.approx((-math.log(2), -math.log(2)), abs=1e-9)


LOST, KLDS = (1.1074, 3.6667, 2.6, 0.4858), (1.5147, 3.7364, 3.1829, 0.594)


def test_a_loss_that_follows_the_kld_is_told_from_zero_where_t_over_chunks_cannot() -> None:
    """ln(PPL / f16) and KLD of four chunks under a cache without any use: perplexity is sevenfold."""
    assert ends(mean_interval(exact(*LOST)))[0] < 0
    low, high = ends(scaled_interval(exact(*LOST), exact(*KLDS)))
    assert 0.1 < low < math.fsum(LOST) / 4 < high


def test_a_perplexity_that_falls_while_kld_rises_is_told_as_such() -> None:
    low, high = ends(scaled_interval(exact(*(-value for value in LOST)), exact(*KLDS)))
    assert low < high < 0


def test_a_loss_of_either_sign_stays_open_however_large_the_kld() -> None:
    low, high = ends(scaled_interval(exact(1.0, -1.0, 0.5, -0.4), exact(*KLDS)))
    assert low < 0 < high


def test_two_chunks_of_any_size_have_an_interval_that_floats_can_hold() -> None:
    low, high = ends(log_interval(exact(1e-6, 50.0), 0.999))
    assert 0 <= low < high
