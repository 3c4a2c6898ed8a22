"""The scores and sums of llama-kv-divergence, compiled as a library and compared with numpy."""

from __future__ import annotations

import ctypes
import math
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

np = pytest.importorskip("numpy")
pytestmark = pytest.mark.slow

HERE = Path(__file__).resolve().parent
HEADER = HERE.parents[1] / "patches/overlay/tools/kv-divergence"
LOGITS = st.lists(st.tuples(st.floats(-40, 40, width=32), st.floats(-40, 40, width=32)), min_size=2, max_size=60)
SCORES = st.lists(
    st.tuples(st.floats(0, 20), st.floats(0, 20), st.floats(0, 5), st.floats(-1, 1), st.sampled_from([0.0, 1.0])),
    min_size=12,
    max_size=80,
)
relaxed = settings(deadline=None)  # a machine may be busy with other things


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = shutil.which("c++")
    if not compiler or sys.platform == "win32":
        pytest.skip("needs c++")
    target = tmp_path_factory.mktemp("scores") / "scores.so"
    words: list[str | Path] = [
        compiler,
        "-std=c++17",
        "-O2",
        "-shared",
        "-fPIC",
        f"-I{HEADER}",
        HERE / "kv_scores.cpp",
        "-o",
        target,
    ]
    subprocess.run(words, check=True, timeout=600)
    found = ctypes.CDLL(str(target))
    found.quantile.restype = ctypes.c_double
    return found


def score(library: ctypes.CDLL, base: Any, cell: Any, following: int) -> list[float]:
    """nll of f16, nll, KLD, change of the probability, same top."""
    out = (ctypes.c_double * 5)()
    rows = [np.ascontiguousarray(one, np.float32) for one in (base, cell)]
    at = [row.ctypes.data_as(ctypes.POINTER(ctypes.c_float)) for row in rows]
    library.score(*at, len(base), following, out)
    return list(out)


def log_p(logits: Any) -> Any:
    exact = np.asarray(logits, np.longdouble)
    return exact - exact.max() - np.log(np.exp(exact - exact.max()).sum())


@relaxed
@given(pairs=LOGITS, data=st.data())
def test_a_score_is_what_its_definition_says(library: ctypes.CDLL, pairs: list[Any], data: Any) -> None:
    base, cell = (np.array(side, np.float32) for side in zip(*pairs, strict=True))
    following = data.draw(st.integers(0, len(pairs) - 1))
    nll_base, nll, kld, p_diff, same_top = score(library, base, cell, following)
    p, q = log_p(base), log_p(cell)
    assert nll_base == pytest.approx(float(-p[following]), abs=1e-12)
    assert nll == pytest.approx(float(-q[following]), abs=1e-12)
    assert kld == pytest.approx(float((np.exp(p) * (p - q)).sum()), abs=1e-12)
    assert kld >= 0
    assert p_diff == pytest.approx(float(np.exp(q[following]) - np.exp(p[following])), abs=1e-12)
    assert same_top == (base.argmax() == cell.argmax())


@relaxed
@given(pairs=LOGITS)
def test_the_same_logits_have_no_divergence_at_all(library: ctypes.CDLL, pairs: list[Any]) -> None:
    base = [one for one, _ in pairs]
    assert score(library, base, base, 0)[2:] == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("size", [1e-3, 1e-5])
def test_a_small_divergence_is_not_lost_in_rounding(library: ctypes.CDLL, size: float) -> None:
    """Of a million terms that cancel: half the variance of the differences, which floats would not leave."""
    random = np.random.default_rng(7)
    base = random.normal(0, 3, 150_000).astype(np.float32)
    cell = (base + random.normal(0, size, base.size)).astype(np.float32)
    p, q = log_p(base), log_p(cell)
    assert score(library, base, cell, 0)[2] == pytest.approx(float((np.exp(p) * (p - q)).sum()), rel=1e-6)


def test_a_word_that_cannot_come_counts_for_nothing_and_no_number_stays_none(library: ctypes.CDLL) -> None:
    never = -math.inf
    assert score(library, [1.0, 2.0, never], [1.0, 2.0, 0.5], 0)[2] == pytest.approx(
        math.log1p(math.exp(0.5) / (math.e + math.exp(2.0)))
    )
    assert score(library, [1.0, 2.0, never], [1.0, 2.0, never], 0)[2] == 0
    assert score(library, [1.0, 2.0, 0.0], [1.0, 2.0, never], 0)[2] == math.inf
    assert math.isnan(score(library, [1.0, 2.0, 0.0], [1.0, math.nan, 0.0], 0)[2])


@relaxed
@given(scores=SCORES)
def test_sums_are_the_means_and_errors_that_llama_perplexity_prints(library: ctypes.CDLL, scores: list[Any]) -> None:
    out = (ctypes.c_double * 19)()
    rows = np.array(scores)
    flat = np.ascontiguousarray(rows.reshape(-1))
    library.totals(flat.ctypes.data_as(ctypes.POINTER(ctypes.c_double)), len(scores), out)
    found = dict(
        zip(
            ("ppl", "base", "ln_ratio", "ratio", "difference", "kld", "mean_dp", "rms_dp", "same_top"),
            zip(out[0:18:2], out[1:18:2], strict=True),
            strict=True,
        )
    )
    count = len(scores)
    base, nll, kld, dp, top = rows.T

    def error(values: Any) -> float:
        return float(math.sqrt(values.var() / (count - 1)))

    near: dict[str, Any] = {"rel": 1e-9, "abs": 1e-9}
    assert found["kld"] == pytest.approx((kld.mean(), error(kld)), **near)
    assert found["ppl"] == pytest.approx((math.exp(nll.mean()), math.exp(nll.mean()) * error(nll)), **near)
    assert found["base"][0] == pytest.approx(math.exp(base.mean()), **near)
    # the error of a difference of means is that of the mean of differences; roots amplify what rounding leaves of 0
    assert found["ln_ratio"] == pytest.approx(((nll - base).mean(), error(nll - base)), rel=1e-6, abs=1e-6)
    assert found["ratio"][0] == pytest.approx(math.exp((nll - base).mean()), **near)
    assert found["mean_dp"] == pytest.approx((100 * dp.mean(), 100 * error(dp)), **near)
    assert found["rms_dp"][0] == pytest.approx(100 * math.sqrt((dp**2).mean()), **near)
    share = top.mean()
    assert found["same_top"] == pytest.approx((100 * share, 100 * math.sqrt(share * (1 - share) / (count - 1))), **near)


@relaxed
@given(values=st.lists(st.floats(-9, 9), min_size=1, max_size=50), percent=st.floats(0, 100))
def test_a_quantile_lies_between_its_neighbours(library: ctypes.CDLL, values: list[float], percent: float) -> None:
    row = np.sort(np.array(values))
    at = row.ctypes.data_as(ctypes.POINTER(ctypes.c_double))
    found = library.quantile(at, len(row), ctypes.c_double(percent))
    assert found == pytest.approx(float(np.quantile(row, percent / 100)), abs=1e-9)


@relaxed
@given(ctx=st.integers(3, 2**18))
def test_blocks_hold_every_position_that_has_a_successor_once(library: ctypes.CDLL, ctx: int) -> None:
    out = (ctypes.c_int * 200)()
    count = library.blocks(ctx, out)
    found = list(zip(out[0 : 2 * count : 2], out[1 : 2 * count : 2], strict=True))
    assert (found[0][0], found[-1][1]) == (0, ctx - 1)
    assert all(one[1] == other[0] for one, other in pairwise(found))
    assert all(begin < end for begin, end in found)
    counted = [one for one in found if one[0] >= ctx // 2]
    assert counted[0][0] == ctx // 2
    assert len(counted) == min(8, ctx - 1 - ctx // 2)
    widths = [end - begin for begin, end in counted]
    assert max(widths) - min(widths) <= 1
