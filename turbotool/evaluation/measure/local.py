"""The sweep of an evaluation: base logits once for each text, then every cell that the store does not hold yet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from turbotool.errors import TurbotoolError
from turbotool.evaluation.cell import Configuration
from turbotool.evaluation.measure.base import base_path, base_prefix, is_base, make_base, remove_bases
from turbotool.evaluation.measure.single import FATAL, measured_cell
from turbotool.evaluation.measure.work import EvalForecast, EvalLedger, Work
from turbotool.evaluation.store import Store
from turbotool.evaluation.sweep import Corpus, EvalJob, Sweep
from turbotool.kv.cachetype import F16
from turbotool.programs.kvdivergence import BATCH
from turbotool.programs.perplexity import require_chunk
from turbotool.system.output import Output, minutes


def run_sweep(sweep: Sweep, store: Store, folder: Path, out: Output, scheduler: str | None = None) -> EvalLedger:
    """Measure what the store does not hold, here or on the workers of a Dask `scheduler`.

    A cell that fails does not keep the others from running. Base logits lie in `folder` while they are needed; those
    that a killed run left are used. Raises CorpusError, NoSpace, StoreError, ClusterError and Interrupted; what was
    measured before is in the store.
    """
    work = look_up(sweep, store)
    corpora = list(dict.fromkeys(job.corpus for job in work.queue))
    _announce(work, len(corpora), out)
    prefixes = [base_prefix(sweep, corpus) for corpus in corpora]
    remove_bases(folder, lambda name: not name.startswith(tuple(prefixes)))
    # the first one is told at once where its base logits are made; the others not after hours
    for corpus in corpora if sweep.streamed else corpora[1:]:
        require_chunk(sweep.runner, sweep.model, sweep.text(corpus, BATCH if sweep.streamed else 0), F16)
    with out.progress("eval") as work.step:
        if scheduler and work.queue:
            from turbotool.evaluation.measure.cluster import measure_all

            measure_all(work, folder, scheduler, out)
        else:
            _measure_here(work, corpora, folder)
        work.tell("done")
    return work.ledger


def _measure_here(work: Work, corpora: Sequence[Corpus], folder: Path) -> None:
    for corpus in corpora:
        base = None if work.sweep.streamed else base_path(work.sweep, corpus, folder)
        if base:
            ensure_base(work, corpus, base)
        for job in [job for job in work.queue if job.corpus == corpus]:
            work.tell(str(job))
            measure(work, job, base)
            work.queue.remove(job)
        if base:
            base.unlink(missing_ok=True)


def look_up(sweep: Sweep, store: Store) -> Work:
    """What the store holds of a sweep, and what is left to measure."""
    work = Work(sweep, store, EvalLedger(), EvalForecast(), [])
    for job in (job for corpus in sweep.corpora for job in sweep.jobs(corpus)):
        found = store.measured(sweep.key(job))
        if found and not work.unlike(job, found):
            work.ledger.measured[job] = found
            work.describe(job)
            work.forecast.learn(job.configuration, found.seconds)
        else:
            work.queue.append(job)
    return work


def _announce(work: Work, bases: int, out: Output) -> None:
    if not work.queue:
        out.say(f"{work.total} runs, all in the store")
        return
    known = f", {len(work.ledger.measured)} of them in the store" if work.ledger.measured else ""
    expected = work.forecast.total(work.queue)
    takes = f"about {minutes(expected)}" if expected is not None else "how long they take is known after the first"
    base = ", each with f16 beside it" if work.sweep.streamed else f", and {bases} for base logits"
    out.say(f"{work.total} runs{known}{base}; {takes}")


def measure(work: Work, job: EvalJob, base: Path | None) -> None:
    """One run. A crash, a time-out or a refused configuration is entered as the cell's failure."""
    try:
        work.settle(job, measured_cell(work.sweep, job, base, work.store))
    except FATAL:
        raise
    except TurbotoolError as error:
        work.ledger.failures[job] = error


def ensure_base(work: Work, corpus: Corpus, path: Path) -> None:
    """The base logits of f16 on a text: those that an interrupted sweep left, or new ones."""
    if is_base(path, work.sweep):
        return
    work.tell(f"base logits of {corpus.name}")
    took = make_base(work.sweep, corpus, path)
    work.forecast.learn(Configuration(F16), took)
