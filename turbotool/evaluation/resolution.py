"""An evaluation that adds chunks until its recommendation can no longer change, and what that saved."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from turbotool.evaluation.cell import Configuration
from turbotool.evaluation.judge.contest import Contest, Criteria
from turbotool.evaluation.judge.looks import Looks
from turbotool.evaluation.measure.local import run_sweep
from turbotool.evaluation.measure.work import EvalLedger
from turbotool.evaluation.store import Store
from turbotool.evaluation.sweep import Corpus, Sweep
from turbotool.system.output import Output


@dataclass(frozen=True)
class Resolution:
    """How far a sequential evaluation went. `looks` were planned, `chunks` is the last one that was taken.

    `chunks_run` are the chunks of all runs together, `seconds` what these took, base logits left out. `chunks_full` and
    `seconds_full` are what it takes to measure every cell over as many chunks as there may be: counted, and estimated
    from the last run of each cell.
    """

    looks: Looks
    chunks: int
    settled: bool
    chunks_run: int
    chunks_full: int
    seconds: float
    seconds_full: float

    def __str__(self) -> str:
        what = "settled" if self.settled else "not settled"
        share = 100 * (1 - self.chunks_run / self.chunks_full) if self.chunks_full else 0.0
        return (
            f"{what} after {self.chunks} of at most {self.looks.chunks[-1]} chunks: {self.chunks_run} chunks were run "
            f"instead of {self.chunks_full} ({share:.0f} % fewer), {self.seconds:.0f} s instead of about "
            f"{self.seconds_full:.0f} s"
        )


@dataclass
class _Tally:
    """What was measured so far, and what it took."""

    ledger: EvalLedger
    chunks_run: int = 0
    seconds: float = 0.0
    ends: dict[Corpus, int] = field(default_factory=dict)  # of texts that have fewer chunks than were asked for

    def enter(self, found: EvalLedger, chunks: int) -> None:
        """A later run of a cell takes the place of an earlier one, a failure too."""
        for job, measured in found.measured.items():
            if measured.chunks < chunks:
                self.ends[job.corpus] = measured.chunks
            self.ledger.measured[job] = measured
            self.chunks_run += measured.chunks
            self.seconds += measured.seconds
        for job, error in found.failures.items():
            self.ledger.measured.pop(job, None)
            self.ledger.failures[job] = error

    def resolution(self, contest: Contest, chunks: int) -> Resolution:
        looks = contest.criteria.looks
        full = {
            job: (self.ends.get(job.corpus, looks.chunks[-1]), one.seconds / one.chunks)
            for job, one in self.ledger.measured.items()
        }
        return Resolution(
            looks,
            chunks,
            contest.settled,
            self.chunks_run,
            sum(most for most, _ in full.values()),
            self.seconds,
            sum(most * seconds for most, seconds in full.values()),
        )


def resolve(
    sweep: Sweep, store: Store, criteria: Criteria, out: Output, scheduler: str | None = None
) -> tuple[EvalLedger, Resolution]:
    """Measure all cells at the first look, and at each later one those whose chunks may change the recommendation.

    Raises what `run_sweep` raises.
    """
    tally = _Tally(EvalLedger())
    contest = Contest(sweep, tally.ledger, criteria, tally.ends)
    taken = 0
    for chunks in criteria.looks.chunks:
        asked, done = _asked(contest, chunks) if taken else sweep.configurations, set[Configuration]()
        # what is found of the smallest size may leave a larger one to be asked for at the same look
        while asked := tuple(one for one in asked if one not in done):
            out.say(f"look at {chunks} chunks: {', '.join(map(str, asked))}")
            part = replace(sweep, configurations=asked, chunks=chunks, controls=not taken)
            tally.enter(run_sweep(part, store, sweep.runner.work, out, scheduler), chunks)
            done.update(asked)
            taken = chunks
            asked = _asked(contest, chunks)
        if not contest.questions() or tally.ends.keys() >= set(sweep.corpora):
            break
    return tally.ledger, tally.resolution(contest, taken)


def _asked(contest: Contest, chunks: int) -> tuple[Configuration, ...]:
    """The configurations that so many chunks may tell something of which may change the recommendation.

    A look that cannot answer a question, by what chunks vary, and cannot show that it is futile, is not taken for it:
    that makes no mistake. The last look is taken for all of them.
    """
    last = chunks >= contest.criteria.looks.chunks[-1]
    questions = [question for question in contest.questions() if last or question.chunks <= chunks]
    return tuple(dict.fromkeys(one for question in questions for one in question.about))
