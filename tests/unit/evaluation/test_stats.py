"""Values of chunks from rounded running means."""

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
from turbotool.evaluation.judge.stats import Series, minus, recover
from turbotool.kv.effective import parse_effective
from turbotool.programs.divergence import Estimate, Running
from turbotool.programs.perplexity import scored


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
    return Measured(found, parse_effective(""), 1.0)


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


def test_the_first_chunks_are_as_exact_as_they_were_printed_then() -> None:
    found = evalstats.kld(measured([0.01, 0.02, 0.03, 0.04]))
    first = found.first(3)
    assert first.values == found.values[:3]
    assert first.bound == pytest.approx(0.5e-5)
    assert first.error is None
    assert found.first(4) == found


def test_pairs_are_of_the_chunks_that_both_have() -> None:
    one, other = measured([0.01, 0.02, 0.03]), measured([0.02, 0.04])
    assert [len(series.values) for series in evalstats.paired(evalstats.kld, one, other)] == [2, 2]


@pytest.mark.parametrize(("printed", "known"), [(0.002, 0.002), (0.0, None), (math.nan, None)])
def test_an_error_that_was_not_printed_is_not_known(printed: float, known: float | None) -> None:
    cell = measured([0.01, 0.02])
    cell = replace(cell, divergence=replace(cell.divergence, mean=Estimate(0.015, printed)))
    assert evalstats.kld(cell).error == known


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
    found = evalstats.kld(Measured(DIVERGENCE, parse_effective(""), 1.0))
    assert found.values[:3] == pytest.approx((0.01019, 2 * 0.00877 - 0.01019, 3 * 0.00886 - 2 * 0.00877))
    assert math.fsum(found.values) / 4 == pytest.approx(0.007953)


def test_unequal_numbers_of_chunks_are_not_paired() -> None:
    with pytest.raises(ValueError, match="shorter"):
        minus(exact(1.0, 2.0), exact(1.0))


def test_without_scipy_the_command_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ToolMissing) as caught:
        evalstats.require_scipy()
    assert "scipy>=1.10" in (caught.value.hint or "")
