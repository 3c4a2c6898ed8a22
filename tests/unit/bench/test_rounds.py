"""The plan, the order of its rounds, and the figures: everything about a benchmark that needs no process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from known_model import known_model

from turbotool.bench.document import cell_fields
from turbotool.bench.figures import BenchCell, make_cells, spread
from turbotool.bench.forecast import BenchForecast
from turbotool.bench.plan import AGAINST, OURS, BenchJob, BenchPlan, BenchSettings, Build, left_out, make_plan, order
from turbotool.bench.rounds import BenchLedger, Failure, verdict
from turbotool.bench.table import markdown_table, of_kind, text
from turbotool.errors import BinaryFailed, ConfigurationMismatch, ToolFailed
from turbotool.kv.cachetype import CachePair
from turbotool.programs.binaries import Binaries
from turbotool.programs.llamabench import BenchPoint, Phase, Sample, Timing
from turbotool.programs.runner import Runner
from turbotool.system.machine import usable_cpus

MODEL = known_model()
PROMPT, GENERATED = Phase("pp", 100), Phase("tg", 10)
SETTINGS = BenchSettings(
    tuple(map(CachePair.parse, ("f16", "q8_0", "turbo4", "q8_0/turbo4"))), (0, 1000), (1, 2), (PROMPT, GENERATED), 3
)
MS = 1_000_000  # ns


def build(name: str, lacks: Sequence[str] = ()) -> Build:
    runner = Runner(Binaries(Path("bin")), Path(), 2)
    # 1 ms a prompt token, 10 ms a decoded one, 0.5 s for everything else
    warm = {PROMPT: Sample(100, 100 * MS), GENERATED: Sample(10, 100 * MS)}
    return Build(name, runner, tuple(lacks), Timing(warm, "c", "", 0.5 + 2 * 0.1 + 0.11))


def plan_of(settings: BenchSettings = SETTINGS, *, two: bool = True) -> BenchPlan:
    return make_plan(MODEL, settings, [build(OURS), *([build(AGAINST, ["turbo4"])] if two else [])])


def job(cache: str, depth: int = 0, threads: int = 1, name: str = OURS) -> BenchJob:
    return BenchJob(name, BenchPoint(CachePair.parse(cache), depth, threads))


def cell_of(ledger: BenchLedger, wanted: BenchJob, phase: Phase = GENERATED) -> BenchCell:
    (cell,) = [cell for cell in make_cells(plan_of(), ledger) if (cell.job, cell.phase) == (wanted, phase)]
    return cell


def ledger_of(times: dict[BenchJob, list[int]]) -> BenchLedger:
    """A ledger in which each job decoded ten tokens a round, in so many ns a token."""
    ledger = BenchLedger(rounds=max(map(len, times.values())))
    for entry, rounds in times.items():
        for number, ns in enumerate(rounds):
            ledger.enter(entry, number, Timing({GENERATED: Sample(10, 10 * ns)}, "c", "", 1.0))
    return ledger


def test_a_cache_is_left_out_on_a_build_that_lacks_one_of_its_types() -> None:
    plan = plan_of()
    assert len([job for job in plan.jobs if job.build == OURS]) == 4 * 2 * 2
    assert {str(job.point.pair) for job in plan.jobs if job.build == AGAINST} == {"f16/f16", "q8_0/q8_0"}
    assert [(item.build, item.pair.short) for item in plan.skipped] == [(AGAINST, "turbo4"), (AGAINST, "q8_0/turbo4")]
    assert left_out(plan) == ["left out on against, whose llama-bench does not take turbo4: turbo4, q8_0/turbo4"]


@given(st.integers(0, 50))
def test_every_round_runs_every_job_once_and_an_odd_one_in_reverse(number: int) -> None:
    jobs = plan_of().jobs
    ordered = order(jobs, 2 * number)
    assert sorted(map(str, ordered)) == sorted(map(str, jobs))
    assert order(jobs, 2 * number + 1) == ordered[::-1]
    assert order(jobs, 2 * number) == ordered


@given(st.integers(0, 50))
def test_what_is_compared_runs_close_together(number: int) -> None:
    ordered = order(plan_of().jobs, number)
    blocks = [key for key, _ in groupby(ordered, lambda job: (job.point.depth, job.point.threads))]
    points = [key for key, _ in groupby(ordered, lambda job: job.point)]
    assert len(blocks) == len(set(blocks)) == 4
    assert len(points) == len(set(points)) == 16


def test_rounds_differ_in_blocks_in_caches_and_in_which_build_comes_first() -> None:
    orders = [order(plan_of().jobs, number) for number in range(0, 20, 2)]
    assert len({(jobs[0].point.depth, jobs[0].point.threads) for jobs in orders}) > 1
    assert len({jobs[0].point.pair for jobs in orders}) > 1
    twice = [[job.build for job in jobs if job.point == BenchPoint(CachePair.parse("q8_0"), 0, 1)] for jobs in orders]
    assert [OURS, AGAINST] in twice
    assert [AGAINST, OURS] in twice


def test_ratios_are_taken_within_a_round() -> None:
    """The machine becomes slower from round to round; the ratio of the medians would be 2.5."""
    ours, theirs = job("q8_0"), job("q8_0", name=AGAINST)
    ledger = ledger_of({ours: [10 * MS, 20 * MS, 80 * MS], theirs: [20 * MS, 50 * MS, 160 * MS]})
    cell = cell_of(ledger, ours)
    assert cell.speed == spread([100, 50, 12.5])
    assert cell.ratio_against is not None
    assert (cell.ratio_against.median, cell.ratio_against.minimum, cell.ratio_against.maximum) == (2.0, 2.0, 2.5)
    assert cell_of(ledger, theirs).ratio_against is None


def test_a_round_that_one_side_lacks_gives_no_ratio() -> None:
    ledger = ledger_of({job("turbo4"): [20 * MS, 10 * MS], job("f16"): [10 * MS]})
    ratio = cell_of(ledger, job("turbo4")).ratio_f16
    assert ratio == spread([0.5])
    assert cell_of(ledger_of({job("turbo4"): [MS]}), job("turbo4")).ratio_f16 is None


def test_f16_is_compared_at_the_same_depth_threads_and_build() -> None:
    ledger = ledger_of(
        {
            job("q8_0", 1000, 2, AGAINST): [10 * MS],
            job("f16", 1000, 2, AGAINST): [30 * MS],
            job("f16", 1000, 2): [50 * MS],
            job("f16", 0, 2, AGAINST): [70 * MS],
            job("f16", 1000, 1, AGAINST): [90 * MS],
        }
    )
    assert cell_of(ledger, job("q8_0", 1000, 2, AGAINST)).ratio_f16 == spread([3.0])


def test_the_cost_of_a_cached_token_is_what_depth_adds_in_a_round() -> None:
    ledger = ledger_of({job("turbo4", 1000): [12 * MS, 25 * MS, 33 * MS], job("turbo4"): [10 * MS, 20 * MS, 30 * MS]})
    deep = cell_of(ledger, job("turbo4", 1000))
    assert deep.cached_token is not None
    assert deep.cached_token.median == pytest.approx(3000)  # (33 - 30) ms over 1000 tokens
    assert deep.cached_token.maximum == pytest.approx(5000)
    assert cell_of(ledger, job("turbo4")).cached_token is None
    assert cell_of(ledger, job("turbo4", 1000), PROMPT).cached_token is None


def test_ms_per_token_is_for_decode() -> None:
    ledger = ledger_of({job("f16"): [20 * MS, 40 * MS, 30 * MS]})
    ledger.enter(job("f16"), 0, Timing({PROMPT: Sample(100, 100 * MS)}, "c", "", 1.0))
    assert cell_of(ledger, job("f16")).ms_per_token == pytest.approx(30)
    assert cell_of(ledger, job("f16"), PROMPT).ms_per_token is None
    assert cell_of(ledger, job("f16"), PROMPT).speed == spread([1000])


def test_a_failed_cell_keeps_its_reason_and_what_it_measured_before() -> None:
    ledger = ledger_of({job("turbo4"): [10 * MS]})
    ledger.failures[job("turbo4")] = Failure(1, BinaryFailed("ended with signal SIGSEGV\nlast words", how="SIGSEGV"))
    found = cell_fields(cell_of(ledger, job("turbo4")))
    assert (found.samples, found.median, found.failure) == ((100.0,), 100.0, "ended with signal SIGSEGV")
    never = cell_fields(cell_of(ledger, job("turbo4"), PROMPT))
    assert (never.samples, never.median, never.ratio_f16) == ((), None, None)


def test_a_document_has_six_digits_of_a_figure() -> None:
    found = cell_fields(cell_of(ledger_of({job("f16"): [3 * MS]}), job("f16")))
    assert (found.median, found.min, found.max, found.samples) == (333.333, 333.333, 333.333, (333.333,))


def test_a_command_with_failed_cells_ends_with_the_gravest_of_their_errors() -> None:
    plan, ledger = plan_of(), BenchLedger()
    assert verdict(plan, ledger) is None
    ledger.failures[job("q8_0")] = Failure(0, ToolFailed("did not end within 900 s"))
    assert isinstance(verdict(plan, ledger), BinaryFailed)
    ledger.failures[job("turbo4", 1000)] = Failure(0, ConfigurationMismatch("requested x\nbut y"))
    error = verdict(plan, ledger)
    assert isinstance(error, ConfigurationMismatch)
    assert error.message.startswith(
        "2 of 24 cells failed: ours q8_0 uncalibrated at depth 0 with 1 thread: did not end within 900 s"
    )


def test_a_forecast_follows_tokens_and_threads_until_it_knows_better() -> None:
    forecast = BenchForecast(plan_of())
    usable = min(2, usable_cpus())
    # load, 200 warmed-up and timed prompt tokens and 11 decoded ones at the first run's rate, which had 2 threads
    assert forecast.seconds(job("f16", 0, 2)) == pytest.approx(0.5 + 0.2 + 0.11)
    assert forecast.seconds(job("f16", 1000, 2)) == pytest.approx(0.5 + 1.2 + 0.11)
    assert forecast.seconds(job("f16", 0, 1)) == pytest.approx(0.5 + usable * 0.31)
    expected = forecast.seconds(job("turbo4", 1000, 2))
    forecast.learn(job("f16", 1000, 2), 3 * forecast.seconds(job("f16", 1000, 2)))
    assert forecast.seconds(job("turbo4", 1000, 2)) == pytest.approx(3 * expected)
    forecast.learn(job("turbo4", 1000, 2), 7.0)
    forecast.learn(job("turbo4", 1000, 2), 8.0)
    assert forecast.seconds(job("turbo4", 1000, 2)) == 7.5
    assert forecast.total([job("turbo4", 1000, 2)] * 4) == 30.0


def test_tables_have_the_columns_that_say_something() -> None:
    ours = {job("f16"): [10 * MS], job("turbo4"): [20 * MS], job("turbo4", 1000): [22 * MS]}
    cells = make_cells(plan_of(two=False), ledger_of(ours))
    header = markdown_table(of_kind(cells, "tg")).splitlines()[0]
    assert header == "| cache | threads | depth | tokens/s | min–max | ms/token | ns per cached token | speed / f16 |"  # noqa: RUF001
    both = make_cells(plan_of(), ledger_of({**ours, job("f16", name=AGAINST): [20 * MS]}))
    assert markdown_table(of_kind(both, "tg")).splitlines()[0].endswith("| speed / f16 | ours / against |")
    assert "Prefill" not in text(both)


def test_rows_of_a_table_carry_the_figures() -> None:
    ledger = ledger_of({job("f16"): [10 * MS], job("turbo4"): [20 * MS], job("turbo4", 1000): [22 * MS]})
    rows = text(make_cells(plan_of(two=False), ledger)).splitlines()
    assert rows[0] == "Decode (tg10)"
    name, figures = ["turbo4", "uncalibrated"], ["50.00", "50.00–50.00", "20.000", "–", "0.500", "(0.500–0.500)"]  # noqa: RUF001
    assert rows[3].split() == [*name, "1", "0", *figures]
    assert rows[4].split()[-2:] == ["2000.0", "–"]  # noqa: RUF001


def test_a_table_of_nothing_is_empty() -> None:
    assert text(make_cells(plan_of(), BenchLedger())) == ""
    assert spread([]) is None


def test_settings_name_each_type_once() -> None:
    assert SETTINGS.types == ("f16", "q8_0", "turbo4")
    assert replace(SETTINGS, phases=(GENERATED,)).phase("pp") is None
