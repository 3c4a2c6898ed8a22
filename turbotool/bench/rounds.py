"""The rounds of a benchmark: every job once a round, what it measured or why it failed in a ledger."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from turbotool.bench.forecast import BenchForecast
from turbotool.bench.plan import BenchJob, BenchPlan, order
from turbotool.errors import BinaryFailed, Busy, ConfigurationMismatch, Interrupted, NoSpace, TurbotoolError, first_line
from turbotool.programs import llamabench
from turbotool.programs.llamabench import Phase, Sample, Timing
from turbotool.programs.runner import TIMEOUT
from turbotool.system.output import Output, minutes

PATIENCE = 20  # a run that takes this many times longer than expected hangs


@dataclass(frozen=True)
class Failure:
    """Why a job failed, and in which round (from 0). It is not run again."""

    round: int
    error: TurbotoolError


@dataclass
class BenchLedger:
    """What was measured so far, by job, phase and round (from 0); which jobs failed; how many rounds are complete."""

    samples: dict[tuple[BenchJob, Phase], dict[int, Sample]] = field(default_factory=dict)
    failures: dict[BenchJob, Failure] = field(default_factory=dict)
    rounds: int = 0

    def enter(self, job: BenchJob, number: int, timing: Timing) -> None:
        for phase, sample in timing.samples.items():
            self.samples.setdefault((job, phase), {})[number] = sample


def run_rounds(plan: BenchPlan, ledger: BenchLedger, out: Output, after_round: Callable[[], None]) -> None:
    """Run every round and enter what it measures in the ledger. A job that fails does not keep the others from running.

    Raises Interrupted and NoSpace; the ledger then holds what was measured before.
    """
    forecast = BenchForecast(plan)
    rounds = [order(plan.jobs, number) for number in range(plan.settings.rounds)]
    queue = [job for jobs in rounds for job in jobs]
    # nothing ran at depth yet, and attention costs more there
    more = " or more" if max(plan.settings.depths) else ""
    out.say(f"rounds: {len(rounds)}, runs a round: {len(plan.jobs)}, about {minutes(forecast.total(queue))}{more}")
    done = 0
    with out.progress("bench") as step:
        for number, jobs in enumerate(rounds):
            for job in jobs:
                left = [later for later in queue[done:] if later not in ledger.failures]
                step(done, len(queue), f"round {number + 1}: {job}", forecast.total(left))
                if job not in ledger.failures:
                    run_job(plan, ledger, forecast, job, number)
                done += 1
            ledger.rounds = number + 1
            after_round()
        step(done, len(queue), "done", 0.0)


def run_job(plan: BenchPlan, ledger: BenchLedger, forecast: BenchForecast, job: BenchJob, number: int) -> None:
    """One run. A crash, a time-out or a refused configuration is entered as the job's failure."""
    build = plan.build(job.build)
    timeout = max(TIMEOUT, PATIENCE * forecast.seconds(job))
    try:
        timing = llamabench.measure(
            build.runner, plan.model, job.point, plan.settings.phases, commit=build.warm.commit, timeout=timeout
        )
    except (Interrupted, NoSpace, Busy):
        raise
    except TurbotoolError as error:
        ledger.failures[job] = Failure(number, error)
        return
    ledger.enter(job, number, timing)
    forecast.learn(job, timing.seconds)


def verdict(plan: BenchPlan, ledger: BenchLedger) -> TurbotoolError | None:
    """The error that the command ends with: None if no job failed, ConfigurationMismatch before BinaryFailed."""
    if not ledger.failures:
        return None
    named = "; ".join(f"{job}: {first_line(failure.error.message)}" for job, failure in ledger.failures.items())
    message = f"{len(ledger.failures)} of {len(plan.jobs)} cells failed: {named}"
    log = plan.builds[0].runner.log
    hint = f"read {log}" if log else None
    if any(isinstance(failure.error, ConfigurationMismatch) for failure in ledger.failures.values()):
        return ConfigurationMismatch(message, hint=hint)
    return BinaryFailed(message, how="failed cells", hint=hint)
