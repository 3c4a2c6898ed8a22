"""What figures are said to mean, on made-up cells and on published ones."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from known_model import known_model
from known_results import cell

from turbotool.evaluation.cell import Configuration, Measured
from turbotool.evaluation.judge.choice import Choice, choose, memory
from turbotool.evaluation.judge.contest import Contest, Criteria
from turbotool.evaluation.judge.finding import ALIKE, BETTER, UNRESOLVED, WORSE, Equivalence
from turbotool.evaluation.judge.looks import Looks
from turbotool.evaluation.judge.tolerance import Tolerance
from turbotool.evaluation.judge.verdict import (
    BASE,
    BELOW,
    KLD,
    LN_RATIO,
    OFF,
    SAME_TOP,
    Comparison,
    compare_all,
    judge_perplexity,
)
from turbotool.evaluation.measure.work import EvalLedger
from turbotool.evaluation.sweep import CONTROL, Corpus, Sweep
from turbotool.inputs.shape import KvShape, cache_shape
from turbotool.kv.cachetype import F16, CachePair
from turbotool.kv.calibration import AUTO
from turbotool.kv.effective import Cache
from turbotool.programs.binaries import Binaries
from turbotool.programs.runner import Runner

pytest.importorskip("scipy")
calibrated = partial(Configuration, calibration=AUTO)
MODEL = known_model("some folder/m.gguf")
TEXT = Corpus("text", Path("text"), "c")
Q8, MIXED, TURBO = CachePair("q8_0", "q8_0"), CachePair("q8_0", "turbo4"), CachePair("turbo4", "turbo4")


def made(cells: dict[Configuration, Measured], tmp_path: Path, chunks: int = 8) -> tuple[Sweep, EvalLedger]:
    """A sweep of one text in which these were measured."""
    configurations = tuple(one for one in cells if one != CONTROL)
    runner = Runner(Binaries(tmp_path), tmp_path, 1)
    sweep = Sweep(runner, MODEL, "b", "m", (TEXT,), configurations, 512, 8)
    ledger = EvalLedger({sweep.job(TEXT, one): measured for one, measured in cells.items()})
    for job in sweep.noise(TEXT):
        ledger.measured[job] = cell(0.0, 0.0, top=100.0, chunks=chunks)
    return sweep, ledger


def compared(cells: dict[Configuration, Measured], tmp_path: Path, chunks: int = 8) -> tuple[Comparison, ...]:
    return compare_all(*made(cells, tmp_path, chunks), Looks((chunks,)), Equivalence())


def verdicts(found: Iterable[Comparison], against: str) -> dict[tuple[str, str], str]:
    return {(str(one.configuration), one.quantity): one.verdict for one in found if one.against == against}


def test_cells_are_compared_with_off_of_the_same_pair_and_with_f16(tmp_path: Path) -> None:
    cells = {
        calibrated(Q8): cell(0.004, 0.001),
        calibrated(Q8, "v"): cell(0.003, 0.001, top=96.0),
        calibrated(TURBO): cell(0.05, 0.02),
        calibrated(TURBO, "k"): cell(0.06, 0.02, top=90.0),
        calibrated(MIXED, "kv"): cell(0.01, 0.0, spread=0.01),
    }
    found = compared(cells, tmp_path)
    assert verdicts(found, OFF) == {
        ("q8_0 rotated v", KLD): BETTER,
        ("q8_0 rotated v", LN_RATIO): ALIKE,
        ("q8_0 rotated v", SAME_TOP): BETTER,
        ("turbo4 rotated k", KLD): WORSE,
        ("turbo4 rotated k", LN_RATIO): ALIKE,
        ("turbo4 rotated k", SAME_TOP): WORSE,
    }
    against_f16 = verdicts(found, BASE)
    assert len(against_f16) == 15
    assert against_f16["turbo4", KLD] == against_f16["turbo4", LN_RATIO] == WORSE
    assert against_f16["q8_0/turbo4 rotated kv", LN_RATIO] == UNRESOLVED


def test_a_difference_is_told_with_its_interval(tmp_path: Path) -> None:
    cells = {calibrated(Q8): cell(0.004, 0.001), calibrated(Q8, "v"): cell(0.003, 0.001)}
    found = compared(cells, tmp_path)[0]
    assert found.difference is not None
    assert found.plain is not None
    assert found.difference.mean == pytest.approx(math.log(0.75))
    assert found.plain.mean == pytest.approx(-0.001)
    assert found.plain.low < -0.001 < found.plain.high < 0
    assert (found.plain.confidence, found.plain.chunks, found.verdict) == (0.95, 8, BETTER)
    assert str(found.finding) == "better by at least 24 %"


def test_a_perplexity_below_f16_is_not_called_better(tmp_path: Path) -> None:
    found = verdicts(compared({calibrated(Q8): cell(0.01, -0.02)}, tmp_path), BASE)
    assert found["q8_0", LN_RATIO] == BELOW


def test_one_chunk_gives_no_verdict(tmp_path: Path) -> None:
    cells = {calibrated(Q8): cell(0.004, 0, chunks=1), calibrated(Q8, "v"): cell(0.001, 0, chunks=1)}
    found = compared(cells, tmp_path, chunks=1)
    assert {str(one.finding) for one in found if one.against == OFF} == {"unresolved: too few chunks"}


def test_a_cell_that_is_not_finite_is_compared_with_nothing(tmp_path: Path) -> None:
    cells = {calibrated(Q8): cell(math.nan, 0), calibrated(Q8, "v"): cell(0.001, 0)}
    found = compared(cells, tmp_path)
    assert {(str(one.configuration), one.against) for one in found} == {("q8_0 rotated v", BASE)}


def published(ppl: float, ppl_error: float, kld: float, kld_error: float, base: tuple[float, float]) -> Measured:
    """A cell of which PPL, KLD and their errors were published, but no chunks; the errors of perplexities are added."""
    error = math.hypot(ppl_error / ppl, base[1] / base[0])
    return cell(kld, math.log(ppl / base[0]), error=error, base=base[0], of_kld=kld_error, chunks=1)


def test_the_published_headline_is_unreliable_as_its_authors_concluded() -> None:
    """256 chunks on gemma-4 26B: q8_0/turbo4 scores 42 % below f16, and its KLD rises while its perplexity falls."""
    f16 = (20045.71, 604.41)
    cells = {
        calibrated(MIXED): published(11673.35, 342.77, 1.7067, 0.0125, f16),
        calibrated(MIXED, "v"): published(11160.84, 332.03, 1.8943, 0.0132, f16),
        calibrated(MIXED, "kv"): published(10785.84, 320.35, 1.9193, 0.0133, f16),
    }
    found = judge_perplexity(cells, "wikitext-2")
    assert not found.reliable
    assert sum("below f16's 20045.7" in reason for reason in found.reasons) == 3
    assert any("(-41.8%)" in reason for reason in found.reasons)


def test_the_published_healthy_control_is_reliable() -> None:
    """Qwen2.5-7B: no cell leaves f16 beyond its error, and KLD differs little."""
    klds, ppls = (0.01255, 0.01158, 0.01474, 0.01305), (6.140, 6.146, 6.135, 6.116)
    cells = {
        calibrated(MIXED, rotation): published(ppl, 0.04, kld, 0.0013, (6.13, 0.04))
        for rotation, kld, ppl in zip(("off", "k", "v", "kv"), klds, ppls, strict=True)
    }
    assert judge_perplexity(cells, "wikitext-2").reliable


def test_two_cells_in_opposite_order_beyond_noise_make_perplexity_unreliable() -> None:
    cells = {
        calibrated(TURBO): cell(2.25, 0.5, spread=0.01),
        calibrated(TURBO, "kv"): cell(2.59, 0.1, spread=0.01),
    }
    found = judge_perplexity(cells, "text")
    assert found.reasons == (
        "turbo4 has the lower KLD but the higher perplexity than turbo4 rotated kv, both beyond noise",
    )
    noisy = {one: cell(measured.divergence.mean.value, 0.3, spread=0.2) for one, measured in cells.items()}
    assert judge_perplexity(noisy, "text").reliable


def test_a_negative_rank_correlation_makes_perplexity_unreliable() -> None:
    names = [CachePair(k, v) for k in ("q8_0", "turbo4", "turbo3") for v in ("q8_0", "turbo4")]
    cells = {calibrated(pair): cell(0.1 * n, 1 - 0.1 * n, chunks=1) for n, pair in enumerate(names, start=1)}
    (reason,) = judge_perplexity(cells, "text").reasons
    assert "opposite order: Kendall's tau -1.00" in reason


def test_slightly_below_f16_is_chance_when_many_cells_were_tried() -> None:
    """At 2.2 standard errors one cell is accused, one of twelve is not."""
    one = {calibrated(Q8): cell(0.01, -0.022)}
    assert not judge_perplexity(one, "text").reliable
    pairs = [CachePair(k, v) for k in ("q5_0", "q5_1", "q4_1", "iq4_nl") for v in ("q8_0", "turbo4", "turbo3")]
    assert judge_perplexity({**one, **{calibrated(pair): cell(0.01, 0.0) for pair in pairs}}, "text").reliable


TOLERANCE = Tolerance(0.02, 93.0)


def choice_of(cells: dict[Configuration, Measured], tmp_path: Path) -> Choice:
    return choose(Contest(*made(cells, tmp_path), Criteria(Looks((8,)), TOLERANCE)), 4096)


@pytest.mark.parametrize(
    ("cells", "chosen"),
    [
        (
            {calibrated(Q8): (0.004, 97), calibrated(TURBO): (0.05, 89), calibrated(MIXED): (0.01, 95)},
            "q8_0/turbo4",
        ),
        ({calibrated(Q8): (0.004, 97), calibrated(TURBO): (0.01, 95)}, "turbo4"),
        ({calibrated(Q8): (0.004, 97), calibrated(TURBO): (0.01, 92.9)}, "q8_0"),
        ({calibrated(Q8): (0.03, 97)}, "f16"),
        ({calibrated(Q8): (0.004, 97), calibrated(Q8, "v"): (0.003, 97)}, "q8_0 rotated v"),
        ({calibrated(Q8): (0.004, 97), calibrated(Q8, "v"): (0.004, 97)}, "q8_0"),
        ({calibrated(Q8): (0.03, 97), calibrated(Q8, "v"): (0.019, 97)}, "q8_0 rotated v"),
        ({calibrated(Q8): (0.004, 92.9), calibrated(Q8, "v"): (0.004, 97)}, "f16"),
        ({calibrated(Q8, "v"): (0.004, 97)}, "q8_0 rotated v"),
        ({calibrated(Q8): (math.nan, 97), Configuration(F16): (0.0, 100)}, "f16"),
    ],
)
def test_the_smallest_memory_inside_the_tolerance_is_recommended(
    tmp_path: Path, cells: dict[Configuration, tuple[float, float]], chosen: str
) -> None:
    found = choice_of({one: cell(kld, 0.0, top=top) for one, (kld, top) in cells.items()}, tmp_path)
    assert str(found.configuration) == chosen
    assert f"-ctk {found.configuration.pair.k} -ctv {found.configuration.pair.v}" in found.command


def test_a_cell_that_only_its_error_keeps_out_is_named(tmp_path: Path) -> None:
    found = choice_of({calibrated(Q8): cell(0.019, 0.0, of_kld=0.001)}, tmp_path)
    assert found.configuration == Configuration(F16)
    told = re.search(r"only their errors keep out q8_0 \(about (\d+) more\): measure more --chunks$", found.reason)
    assert told
    # 1.96 standard errors have to become 1: of tokens, of which there would be 3.84 times as many, and a little more
    assert int(told[1]) == pytest.approx(8 * 2.84, rel=0.2)
    assert not found.settled


def reported(mib: float) -> tuple[Cache, ...]:
    return (Cache(512, 30, 1, mib, "q8_0", 0, "turbo4", 0),)


def test_memory_follows_from_the_heads_where_the_binary_confirms_them() -> None:
    """Reported for SmolLM2-135M with q8_0/turbo4: 4.48 MiB at 512 tokens."""
    found = memory(MODEL, MIXED, 8192, reported(4.48))
    assert (found.mib, found.exact) == (30 * 3 * (68 + 34) * 8192 / 2**20, True)
    assert not memory(MODEL, MIXED, 8192, ()).exact


def test_memory_is_scaled_from_the_report_where_the_heads_say_otherwise() -> None:
    found = memory(MODEL, MIXED, 8192, reported(2.0))
    assert (found.mib, found.exact) == (32.0, False)


def test_memory_of_windows_does_not_grow_with_the_context() -> None:
    """Two caches that a binary reports at 1024 tokens: 2 layers of all tokens, 4 that look back over 256."""
    whole, windowed = cache_shape((1, 1), 64, 64), cache_shape((1,) * 4, 64, 64, 256)
    model = replace(MODEL, kv=KvShape((whole, windowed), (64,), (64,)))
    both = (Cache(1024, 2, 1, 0.2, "q8_0", 0, "turbo4", 0), Cache(768, 4, 1, 0.3, "q8_0", 0, "turbo4", 0))
    found = memory(model, MIXED, 8192, both)
    # llama-server keeps a window for each of its four sequences, and a batch of 512
    assert (found.mib, found.exact) == (((68 + 34) * (2 * 8192 + 4 * (4 * 256 + 512))) / 2**20, True)
