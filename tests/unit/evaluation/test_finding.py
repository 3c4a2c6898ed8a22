"""What an interval says in words, and how many chunks would make it say more."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turbotool.evaluation.judge.finding import (
    MOST_CHUNKS,
    NATS,
    PERCENT,
    POINTS,
    Equivalence,
    Finding,
    find,
    floored,
)
from turbotool.evaluation.judge.interval import Interval, mean_interval, student_t
from turbotool.evaluation.judge.looks import Looks, doubling
from turbotool.evaluation.judge.stats import Series

pytest.importorskip("scipy")


def between(low: float, high: float, chunks: int = 4) -> Interval:
    return Interval((low + high) / 2, low, high, 0.95, chunks)


def said(low: float, high: float, within: float, unit: str) -> str:
    return str(find(between(low, high), within, unit, "better", "worse"))


@pytest.mark.parametrize(
    ("low", "high", "within", "unit", "words"),
    [
        (0.0123, 0.02, 0.01, NATS, "worse by at least 0.012 nats"),
        (math.log(1.5), math.log(9), math.log(1.05), PERCENT, "worse by at least 50 %"),
        (math.log(0.5), math.log(0.8), math.log(1.05), PERCENT, "better by at least 20 %"),
        (-3.29, -1.96, 1.0, POINTS, "better by at least 1.9 points"),
        (-0.5, 0.9, 1.0, POINTS, "equal within 1 point"),
        (0.2, 0.9, 1.0, POINTS, "equal within 1 point"),
        (math.log(0.98), math.log(1.02), math.log(1.05), PERCENT, "equal within 5 %"),
    ],
)
def test_a_finding_is_one_of_three_kinds(low: float, high: float, within: float, unit: str, words: str) -> None:
    assert said(low, high, within, unit) == words


def test_what_is_neither_told_from_zero_nor_inside_the_bound_is_unresolved() -> None:
    found = find(between(-0.5, 2.5), 1.0, POINTS, "worse", "better")
    assert (found.word, found.at_least, found.within) == ("unresolved", None, None)
    assert str(found) == f"unresolved: about {found.chunks_more} chunks more"


@given(st.floats(-10, 10), st.floats(0.001, 20), st.floats(0, 5))
def test_what_lies_beyond_the_bound_is_never_called_equal(mean: float, half: float, within: float) -> None:
    found = find(between(mean - half, mean + half), within, POINTS, "worse", "better")
    assert (found.word == "equal") == (abs(mean) + half <= within or math.isclose(abs(mean) + half, within)) or (
        math.isclose(abs(mean) + half, within, abs_tol=1e-9)
    )
    assert found.word != "equal" or abs(mean) <= within


@given(st.floats(-3, 3), st.floats(0.1, 20), st.integers(2, 64))
def test_as_many_more_chunks_resolve_it_and_one_less_does_not(mean: float, half: float, chunks: int) -> None:
    found = find(between(mean - half, mean + half, chunks), 1.0, POINTS, "worse", "better")
    if found.word != "unresolved" or found.chunks_more == MOST_CHUNKS:
        return
    assert found.chunks_more is not None
    target = max(abs(mean), 1 - abs(mean))
    spread = half / student_t(chunks) * math.sqrt(chunks)
    halves = [
        student_t(count) * spread / math.sqrt(count)
        for count in (chunks + found.chunks_more + delta for delta in (0, -1))
        if count > 1
    ]
    assert halves[0] <= target * (1 + 1e-9)
    assert found.chunks_more == 1 or halves[1] > target


def test_one_chunk_and_differences_without_end_have_words_too() -> None:
    assert str(find(None, 1.0, POINTS, "worse", "better")) == "unresolved: too few chunks"
    endless = find(between(-1.0, 1.0), 0.0, POINTS, "worse", "better")
    assert endless == Finding("unresolved", POINTS, chunks_more=MOST_CHUNKS)
    assert str(endless) == f"unresolved: {MOST_CHUNKS} chunks more are too few"
    assert str(Finding("unresolved", POINTS, chunks_more=1)) == "unresolved: about 1 chunk more"


@given(st.floats(1e-9, 1e9))
def test_at_least_is_never_more_than_was_found(amount: float) -> None:
    told = float(floored(amount))
    assert told <= amount * (1 + 1e-9)
    assert told >= 0.89 * amount


def test_a_catastrophe_is_told_with_four_chunks() -> None:
    """Perplexity 64 beside 23: as much worse as a cache can be, and not by chance."""
    lost = Series((0.9, 1.1, 1.05, 1.0), (0.0,) * 4, 0.0, 0.06)
    found = find(mean_interval(lost), Equivalence().ln_ppl, PERCENT, "below f16", "worse")
    assert found.word == "worse"
    assert found.at_least is not None
    assert found.at_least > 100


@pytest.mark.parametrize("most", [1, 4, 5, 8, 32, 100])
def test_looks_double_up_to_the_most_chunks_and_spend_what_there_is(most: int) -> None:
    looks = doubling(most)
    assert looks.chunks[-1] == most
    assert all(one < other <= 2 * one for one, other in zip(looks.chunks, looks.chunks[1:], strict=False))
    spent = sum(1 - looks.at(chunks) for chunks in looks.chunks)
    assert spent == pytest.approx(0.05)


def test_a_single_look_spends_nothing() -> None:
    assert Looks((32,)).at(32) == Looks((32,)).at(9) == pytest.approx(0.95)


def test_a_text_that_ends_between_looks_counts_as_the_next_one() -> None:
    looks = doubling(32)
    assert looks.at(9) == looks.at(16) != looks.at(8)
    assert looks.at(40) == looks.at(32)
