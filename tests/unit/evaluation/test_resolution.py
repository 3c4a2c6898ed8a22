"""An evaluation that adds chunks: which cells it measures again, when it ends, and what it says of itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from known_model import known_model
from known_results import cell, running

from turbotool.errors import BinaryFailed
from turbotool.evaluation import resolution
from turbotool.evaluation.cell import Configuration, Measured
from turbotool.evaluation.judge.choice import choose
from turbotool.evaluation.judge.contest import Contest, Criteria
from turbotool.evaluation.judge.looks import Looks, doubling
from turbotool.evaluation.measure.work import EvalLedger
from turbotool.evaluation.resolution import Resolution, resolve
from turbotool.evaluation.sweep import CONTROL, Corpus, Sweep
from turbotool.kv.cachetype import F16, CachePair
from turbotool.programs.binaries import Binaries
from turbotool.programs.divergence import Estimate
from turbotool.programs.runner import Runner
from turbotool.system.output import Output

pytest.importorskip("scipy")
Q8, MIXED, TURBO = (Configuration(CachePair.parse(name)) for name in ("q8_0", "q8_0/turbo4", "turbo4"))
ROTATED = replace(MIXED, rotation="v")
TRIALS = 40
Shape = Callable[[int], Measured]


def kld(mean: float, spread: float = 0.0, top: float = 97.0) -> Shape:
    """A cell that has this mean over any even number of chunks, which lie so far above and below it."""
    return lambda chunks: cell(mean, 0.0, spread=spread, top=top, chunks=chunks, of_kld=1e-6)


@dataclass
class Site:
    """A sweep whose cells are made up, and what was measured of them: chunks, configurations, whether with controls."""

    cells: dict[Configuration, Shape]
    longest: int = 1000
    fails_at: int = 0
    asked: list[tuple[int, list[str], bool]] = field(default_factory=list)

    def run_sweep(self, sweep: Sweep, *_: Any) -> EvalLedger:
        self.asked.append(
            (sweep.chunks, [str(one).replace(" uncalibrated", "") for one in sweep.configurations], sweep.controls)
        )
        found = EvalLedger()
        for job in (job for corpus in sweep.corpora for job in sweep.jobs(corpus)):
            if sweep.chunks == self.fails_at:
                found.failures[job] = BinaryFailed("crashed", how="no result")
            else:
                plain = kld(0.0) if job.configuration.pair == F16 else kld(0.1)
                found.measured[job] = self.cells.get(job.configuration, plain)(min(sweep.chunks, self.longest))
        return found

    def resolve(self, folder: Path, monkeypatch: pytest.MonkeyPatch, most: int = 32) -> tuple[Resolution, Contest]:
        monkeypatch.setattr(resolution, "run_sweep", self.run_sweep)
        runner, text = Runner(Binaries(folder), folder, 1), Corpus("text", folder / "text", "c")
        sweep = Sweep(runner, known_model("m.gguf"), "b", "m", (text,), tuple(self.cells), 512, most)
        store: Any = None
        criteria = Criteria(doubling(most))
        ledger, found = resolve(sweep, store, criteria, Output(quiet=True))
        return found, Contest(sweep, ledger, criteria)


def test_what_is_clear_at_the_first_look_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site({Q8: kld(0.004), TURBO: kld(0.05)})
    found, contest = site.resolve(tmp_path, monkeypatch)
    assert site.asked == [(4, ["q8_0", "turbo4"], True)]
    assert (found.chunks, found.settled) == (4, True)
    # f16 twice, q4_0, and two caches, of a second each
    assert (found.chunks_run, found.chunks_full, found.seconds, found.seconds_full) == (5 * 4, 5 * 32, 5.0, 40.0)
    assert "settled after 4 of at most 32 chunks: 20 chunks were run instead of 160 (88 % fewer)" in str(found)
    assert contest.best([one for one in contest.smaller if contest.is_winner(one)]) == Q8


def test_only_what_may_change_the_recommendation_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site({Q8: kld(0.004), MIXED: kld(0.016, 0.002), TURBO: kld(0.05)})
    found, contest = site.resolve(tmp_path, monkeypatch)
    assert site.asked[0] == (4, ["q8_0", "q8_0/turbo4", "turbo4"], True)
    assert site.asked[1:]
    assert all((cells, controls) == (["q8_0/turbo4"], False) for _, cells, controls in site.asked[1:])
    assert found.settled
    assert found.chunks < 32
    assert contest.is_winner(MIXED)
    assert found.chunks_run < found.chunks_full / 2


def test_a_larger_size_is_asked_for_when_the_smaller_one_is_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site({Q8: kld(0.016, 0.004), MIXED: kld(0.025, 0.006)})
    found, _ = site.resolve(tmp_path, monkeypatch)
    looks = [chunks for chunks, _, _ in site.asked]
    assert site.asked[1][1] == ["q8_0/turbo4"]
    assert site.asked[-1][1] == ["q8_0"]
    assert looks == sorted(looks)
    assert found.settled


def test_a_rotation_is_settled_with_the_cache_that_it_is_compared_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def less(chunks: int) -> Measured:
        """A tenth less, but by turns much less and a little more."""
        return cell(0.009, 0.0, spread=-0.0005, top=97.0, chunks=chunks, of_kld=1e-6)

    site = Site({MIXED: kld(0.01, 0.0005), ROTATED: less})
    found, contest = site.resolve(tmp_path, monkeypatch)
    assert sorted(site.asked[1][1]) == ["q8_0/turbo4", "q8_0/turbo4 rotated v"]
    assert found.settled
    assert contest.worth(ROTATED) == "yes"


def test_what_no_number_of_chunks_settles_ends_with_the_last_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site({Q8: kld(0.02, 0.004)})
    found, _ = site.resolve(tmp_path, monkeypatch)
    assert [chunks for chunks, _, _ in site.asked] == [4, 32]  # what chunks vary says that 8 and 16 are too few
    assert not found.settled
    assert str(found).startswith("not settled after 32 of at most 32 chunks")


@pytest.mark.parametrize("longest", [32, 20])
def test_a_larger_size_is_asked_for_when_there_are_no_more_chunks_for_the_smaller_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, longest: int
) -> None:
    site = Site({Q8: kld(0.004), MIXED: kld(0.016, 0.004), TURBO: kld(0.02, 0.004)}, longest)
    found, contest = site.resolve(tmp_path, monkeypatch)
    assert [cells for _, cells, _ in site.asked[1:]] == [["turbo4"], ["q8_0/turbo4"]]
    assert not contest.is_winner(TURBO)
    assert contest.is_winner(MIXED)
    assert not found.settled  # turbo4 may yet be inside


def tops(*counts: int) -> Shape:
    """A cell whose likeliest successor is the same for so many of 255 tokens, by turns; one of 100 000 is lost."""
    return lambda chunks: chunked([1e-5] * chunks, [counts[n % len(counts)] for n in range(chunks)])


def test_what_all_chunks_would_hardly_show_is_given_up_for_a_larger_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A same top of 92.5 % would stay open at 32 chunks, and those would not recommend it."""
    site = Site({MIXED: tops(243, 247), TURBO: tops(234, 238)})
    found, contest = site.resolve(tmp_path, monkeypatch)
    assert contest.standing(TURBO).state == "open"
    assert site.asked[1:] == [(16, ["turbo4"], False)]
    assert found.settled
    assert choice(contest) == MIXED
    every = Contest(contest.sweep, site.run_sweep(replace(contest.sweep, chunks=32)), Criteria(Looks((32,))))
    assert every.standing(TURBO).state != "inside"


def test_a_question_waits_for_the_look_that_may_answer_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That the rotation is not worth it is seen at 8 chunks; whether the cache is inside, not before the last look."""

    site = Site({MIXED: kld(0.02, 0.004), ROTATED: kld(0.0198, 0.005)})
    site.resolve(tmp_path, monkeypatch)
    assert [(chunks, len(cells)) for chunks, cells, _ in site.asked] == [(4, 2), (8, 2), (32, 1)]


def test_a_text_that_ends_ends_the_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site({Q8: kld(0.02, 0.004)}, longest=6)
    found, _ = site.resolve(tmp_path, monkeypatch)
    assert [chunks for chunks, _, _ in site.asked] == [4, 32]
    assert not found.settled
    assert found.chunks_full == 4 * 6


def test_a_cell_that_crashes_at_a_later_look_has_no_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site({Q8: kld(0.004), MIXED: kld(0.016, 0.004)}, fails_at=32)
    found, contest = site.resolve(tmp_path, monkeypatch)
    assert [str(job.configuration) for job in contest.ledger.failures] == ["q8_0/turbo4 uncalibrated"]
    assert contest.found(MIXED) == []
    assert not found.settled
    assert contest.is_winner(Q8)
    assert CONTROL in {job.configuration for job in contest.ledger.measured}


# mean KLD and same top of the default model; what rotation changes there
LIKE_THE_DEFAULT = {
    Q8: (0.0045, 95.3),
    replace(Q8, rotation="k"): (0.0038, 95.0),
    MIXED: (0.0088, 94.1),
    replace(MIXED, rotation="k"): (0.0076, 94.3),
    ROTATED: (0.0087, 94.1),
    TURBO: (0.0158, 92.6),  # all of 32 chunks leave open whether it has 93 %
    replace(TURBO, rotation="k"): (0.0163, 92.3),
    replace(TURBO, rotation="v"): (0.0157, 92.7),
}


def simulated(seed: int) -> dict[Configuration, Shape]:
    """Cells of 32 chunks that are hard for all of them alike, with the tokens that chance gives."""
    np = pytest.importorskip("numpy")
    random = np.random.default_rng(seed)
    hard = np.exp(random.normal(-0.02, 0.2, 32))

    def shape(mean: float, top: float) -> Shape:
        klds = mean * hard * np.exp(random.normal(0, 0.05, 32))
        tops = random.binomial(255, top / 100, 32)
        return lambda chunks: chunked(klds[:chunks].tolist(), tops[:chunks].tolist())

    return {one: shape(*figures) for one, figures in LIKE_THE_DEFAULT.items()}


def chunked(klds: list[float], tops: list[int]) -> Measured:
    """A cell with these chunks: mean KLD, and tokens whose likeliest successor is the same."""
    plain = cell(fmean(klds), 0.0, chunks=len(klds))
    same = [round(100 * sum(tops[:n]) / (255 * n), 3) for n in range(1, len(tops) + 1)]
    rows = running(klds, [0.0] * len(klds), 0.0)
    table = tuple(replace(row, same_top=Estimate(top)) for row, top in zip(rows, same, strict=True))
    share = sum(tops) / (255 * len(tops))
    error = 100 * math.sqrt(share * (1 - share) / (255 * len(tops) - 1))
    mean = Estimate(round(fmean(klds), 6), 1.5 * fmean(klds) / math.sqrt(255 * len(klds)))
    found = replace(plain.divergence, mean=mean, same_top=Estimate(same[-1], error), running=table)
    return replace(plain, divergence=found, seconds=float(len(klds)))


@pytest.mark.slow
def test_the_recommendation_is_that_of_all_chunks_for_less_than_half_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alike, run, full = 0, 0.0, 0.0
    for seed in range(TRIALS):
        site = Site(simulated(seed))
        found, contest = site.resolve(tmp_path, monkeypatch)
        every = site.run_sweep(replace(contest.sweep, chunks=32))
        alike += choice(contest) == choice(Contest(contest.sweep, every, Criteria(Looks((32,)))))
        run, full = run + found.chunks_run, full + found.chunks_full
    assert alike >= 0.9 * TRIALS
    assert run <= full / 2


def choice(contest: Contest) -> Configuration:
    return choose(contest, 4096).configuration
