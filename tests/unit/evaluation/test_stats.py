"""Values of chunks from rounded running means, and intervals of their differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from known_results import DIVERGENCE

from turbotool.errors import ToolMissing
from turbotool.evaluation.cell import Measured
from turbotool.evaluation.judge import stats as evalstats
from turbotool.evaluation.judge.stats import Series, interval, minus, recover
from turbotool.programs.divergence import Estimate, Running
from turbotool.programs.perplexity import scored

stats = pytest.importorskip("scipy.stats")


def running(values: Sequence[float], digits: int) -> list[float]:
    """What the program prints of the means."""
    return [round(math.fsum(values[:n]) / n, digits) for n in range(1, len(values) + 1)]


def exact(*values: float) -> Series:
    return Series(values, (0.0,) * len(values), 0.0)


def measured(klds: Sequence[float], tops: Sequence[int] = (), ctx: int = 512) -> Measured:
    """A measurement of which these are the chunks: mean KLD, and tokens whose likeliest successor is the same."""
    tops = tops or [0] * len(klds)
    means = running(klds, 5)
    percent = running([100 * count / scored(ctx) for count in tops], 3)
    rows = tuple(
        Running(n, Estimate(1), Estimate(2 * mean), Estimate(mean), Estimate(1), Estimate(top))
        for n, (mean, top) in enumerate(zip(means, percent, strict=True), start=1)
    )
    found = replace(DIVERGENCE, running=rows, mean=Estimate(round(math.fsum(klds) / len(klds), 6)))
    return Measured(found, {}, 1.0)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=300), st.integers(3, 6))
def test_each_recovered_value_is_as_near_as_the_bound_says(values: list[float], digits: int) -> None:
    half = 0.5 * 10**-digits
    found = recover(running(values, digits), [half] * len(values))
    slack = 1e-9
    for number, (value, true, bound) in enumerate(zip(found.values, values, found.bounds, strict=True), start=1):
        assert bound == pytest.approx((2 * number - 1) * half)
        assert abs(value - true) <= bound + slack
    assert abs(math.fsum(found.values) - math.fsum(values)) <= len(values) * (found.bound + slack)


@given(st.lists(st.floats(0, 5), min_size=2, max_size=40))
def test_the_mean_of_the_chunks_is_known_as_well_as_it_is_printed(klds: list[float]) -> None:
    found = evalstats.kld(measured(klds))
    assert abs(math.fsum(found.values) / len(klds) - math.fsum(klds) / len(klds)) <= found.bound + 1e-9
    assert found.bound == 0.5e-6


@given(st.lists(st.integers(0, 255), min_size=1, max_size=60))
def test_tokens_with_the_same_successor_are_counted_exactly(tops: list[int]) -> None:
    found = evalstats.same_top(measured([0.0] * len(tops), tops), 512)
    assert [round(value * 255 / 100) for value in found.values] == tops
    assert found.bound == 0


def test_where_rounding_hides_single_tokens_the_bound_says_so() -> None:
    tops = [4000] * 40
    found = evalstats.same_top(measured([0.0] * len(tops), tops, ctx=16384), 16384)
    assert max(found.bounds) > 0.03
    assert found.values == pytest.approx([100 * 4000 / scored(16384)] * 40, abs=max(found.bounds))


def test_chunks_of_a_real_log() -> None:
    found = evalstats.kld(Measured(DIVERGENCE, {}, 1.0))
    assert found.values[:3] == pytest.approx((0.01019, 2 * 0.00877 - 0.01019, 3 * 0.00886 - 2 * 0.00877))
    assert math.fsum(found.values) / 4 == pytest.approx(0.007953)


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5)), min_size=2, max_size=30), st.sampled_from([0.9, 0.95]))
def test_an_interval_is_that_of_the_paired_t_test(pairs: list[tuple[float, float]], confidence: float) -> None:
    one, other = (exact(*values) for values in zip(*pairs, strict=True))
    found = interval(minus(one, other), confidence)
    differences = [a - b for a, b in pairs]
    assert found is not None
    if len(set(differences)) > 1:
        theirs = stats.ttest_rel(one.values, other.values).confidence_interval(confidence)
        assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert found.mean == pytest.approx(math.fsum(differences) / len(differences), abs=1e-9)


def test_rounding_is_part_of_the_interval() -> None:
    found = interval(minus(Series((1.0, 1.0), (0.1, 0.3), 0.1), Series((1.0, 1.0), (0.1, 0.3), 0.1)))
    assert found is not None
    assert (found.low, found.high, found.sign) == (-0.2, 0.2, 0)


@pytest.mark.parametrize(("values", "sign"), [((1, 1.1, 0.9), 1), ((-1, -1.1, -0.9), -1), ((1, -1, 0.1), 0)])
def test_the_sign_is_that_of_the_whole_interval(values: tuple[float, ...], sign: int) -> None:
    found = interval(exact(*values))
    assert found is not None
    assert found.sign == sign


def test_one_chunk_and_what_is_not_finite_have_no_interval() -> None:
    assert interval(exact(1.0)) is None
    assert interval(exact(1.0, math.nan)) is None


def test_unequal_numbers_of_chunks_are_not_paired() -> None:
    with pytest.raises(ValueError, match="shorter"):
        minus(exact(1.0, 2.0), exact(1.0))


def test_without_scipy_the_command_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ToolMissing) as caught:
        evalstats.require_scipy()
    assert "scipy>=1.10" in (caught.value.hint or "")
