"""How long the runs of a benchmark will take: a simple model of llama-bench, corrected by what runs took so far."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

from turbotool.bench.plan import BenchJob, BenchPlan
from turbotool.programs.llamabench import DECODE, PREFILL, Timing
from turbotool.system.machine import usable_cpus


class BenchForecast:
    """Expected durations in seconds. Before a depth was run once they are low: attention grows with the depth."""

    def __init__(self, plan: BenchPlan) -> None:
        self._plan = plan
        self._took: dict[BenchJob, list[float]] = {}

    def learn(self, job: BenchJob, seconds: float) -> None:
        """A run of the job took that long."""
        self._took.setdefault(job, []).append(seconds)

    def seconds(self, job: BenchJob) -> float:
        """The expected duration of one run."""
        if job in self._took:
            return fmean(self._took[job])
        return modelled(self._plan, job) * self._correction(job.point.depth)

    def total(self, jobs: Iterable[BenchJob]) -> float:
        """The expected duration of all of them, one after the other."""
        return sum(map(self.seconds, jobs))

    def _correction(self, depth: int) -> float:
        """How much longer than modelled the runs took so far: those at this depth, or else all."""
        same = [job for job in self._took if job.point.depth == depth] or list(self._took)
        modelled_seconds = sum(modelled(self._plan, job) for job in same)
        return sum(fmean(self._took[job]) for job in same) / modelled_seconds if modelled_seconds else 1.0


def modelled(plan: BenchPlan, job: BenchJob) -> float:
    """Seconds of a run that follow from its build's first run if work is linear in tokens and in usable threads.

    llama-bench loads the model, warms up (the prompt once, one token), fills the cache, then measures.
    """
    settings, warm = plan.settings, plan.build(job.build).warm
    prompt, generated = settings.phase(PREFILL), settings.phase(DECODE)
    prefilled = job.point.depth + (2 * prompt.tokens if prompt else 0)
    decoded = generated.tokens + 1 if generated else 0
    slowdown = _effective(max(settings.threads)) / _effective(job.point.threads)
    per_token = {phase.kind: sample.seconds / sample.tokens for phase, sample in warm.samples.items()}
    return load_seconds(warm) + slowdown * (per_token[PREFILL] * prefilled + per_token[DECODE] * decoded)


def load_seconds(warm: Timing) -> float:
    """What the first run of a build spent on anything but tokens."""
    spent = sum(
        sample.seconds * (2 if phase.kind == PREFILL else 1 + 1 / sample.tokens)
        for phase, sample in warm.samples.items()
    )
    return max(0.0, warm.seconds - spent)


def _effective(threads: int) -> int:
    """Threads beyond the usable CPUs make nothing faster."""
    return min(threads, usable_cpus())
