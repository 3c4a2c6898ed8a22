"""The sweep of an evaluation: base logits once for each text, then every cell that the store does not hold yet."""

from __future__ import annotations

import platform
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from turbotool.atomic import need_space, space_guard
from turbotool.cachetype import CachePair
from turbotool.errors import (
    BinaryFailed,
    Busy,
    ClusterError,
    ConfigurationMismatch,
    Interrupted,
    NoSpace,
    StoreError,
    TurbotoolError,
)
from turbotool.evalcell import F16, Configuration, Measured
from turbotool.evalplan import Corpus, Hashes, Job, Sweep, binaries_hash
from turbotool.evalstore import Store
from turbotool.machine import describe, kin, read_machine
from turbotool.output import Output, Progress, minutes
from turbotool.perplexity import base_bytes, compare, require_chunk, write_base

BASE_MAGIC = b"_logits_"
BASE_HEADER = struct.Struct("<8sIii")  # magic, tokens a chunk, vocabulary, chunks
FATAL = (Interrupted, NoSpace, Busy, StoreError, ClusterError)


@dataclass
class Ledger:
    """What is known so far: measurements, and why others failed.

    `fresh` counts the measurements that this run made, `seconds` sums up what its programs took.
    """

    measured: dict[Job, Measured] = field(default_factory=dict)
    failures: dict[Job, TurbotoolError] = field(default_factory=dict)
    fresh: int = 0
    seconds: float = 0.0

    @property
    def ended(self) -> int:
        return len(self.measured) + len(self.failures)


class Forecast:
    """Expected seconds of a run: what runs with the same cache took, or else all runs; unknown before the first."""

    def __init__(self) -> None:
        self._took: dict[CachePair, list[float]] = {}

    def learn(self, configuration: Configuration, seconds: float) -> None:
        self._took.setdefault(configuration.pair, []).append(seconds)

    def total(self, jobs: Sequence[Job]) -> float | None:
        """The expected duration of all of them, one after the other; None if nothing ran yet."""
        every = [seconds for took in self._took.values() for seconds in took]
        if not every:
            return None
        return sum(fmean(self._took.get(job.configuration.pair, every)) for job in jobs)


@dataclass
class Work:
    """A sweep in progress; `queue` are the runs that are left, of which `at_once` run at the same time."""

    sweep: Sweep
    store: Store
    ledger: Ledger
    forecast: Forecast
    queue: list[Job]
    at_once: int = 1
    step: Progress = lambda done, total, what="", left=None: None

    @property
    def total(self) -> int:
        return self.ledger.ended + len(self.queue)

    def tell(self, what: str) -> None:
        """Move the progress bar."""
        left = self.forecast.total(self.queue)
        self.step(self.ledger.ended, self.total, what, None if left is None else left / self.at_once)

    def keep(self, job: Job, measured: Measured) -> None:
        """Commit a measurement at once."""
        self.store.keep(self.sweep.key(job), f"{self.sweep.model.path.name}: {job}", measured)
        self.ledger.measured[job] = measured
        self.ledger.fresh += 1
        self.ledger.seconds += measured.seconds
        self.forecast.learn(job.configuration, measured.seconds)


def run_sweep(sweep: Sweep, store: Store, folder: Path, out: Output, scheduler: str | None = None) -> Ledger:
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
    for corpus in corpora[1:]:  # the first one is told at once; the others not after hours
        require_chunk(sweep.runner, sweep.model, sweep.text(corpus), F16)
    with out.progress("eval") as work.step:
        if scheduler and work.queue:
            from turbotool.evalcluster import measure_all

            measure_all(work, folder, scheduler, out)
        else:
            _measure_here(work, corpora, folder)
        work.tell("done")
    return work.ledger


def _measure_here(work: Work, corpora: Sequence[Corpus], folder: Path) -> None:
    for corpus in corpora:
        base = base_path(work.sweep, corpus, folder)
        ensure_base(work, corpus, base)
        for job in [job for job in work.queue if job.corpus == corpus]:
            work.tell(str(job))
            measure(work, job, base)
            work.queue.remove(job)
        base.unlink(missing_ok=True)


def look_up(sweep: Sweep, store: Store) -> Work:
    """What the store holds of a sweep, and what is left to measure."""
    work = Work(sweep, store, Ledger(), Forecast(), [])
    for job in (job for corpus in sweep.corpora for job in sweep.jobs(corpus)):
        if found := store.measured(sweep.key(job)):
            work.ledger.measured[job] = found
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
    out.say(f"{work.total} runs{known}, and {bases} for base logits; {takes}")


def measure(work: Work, job: Job, base: Path) -> None:
    """One run. A crash, a time-out or a refused configuration is entered as the cell's failure."""
    try:
        work.keep(job, measured_cell(work.sweep, job, base, work.store))
    except FATAL:
        raise
    except TurbotoolError as error:
        work.ledger.failures[job] = error


def measured_cell(sweep: Sweep, job: Job, base: Path, hashes: Hashes) -> Measured:
    """One run of the programs.

    What another build measured must not pass for this one's: raises ConfigurationMismatch if they were replaced.
    """
    text, configuration = sweep.text(job.corpus), job.configuration
    found, run = compare(sweep.runner, sweep.model, text, configuration.pair, base, configuration.knobs)
    try:
        same = binaries_hash(hashes, sweep.runner.binaries) == sweep.binaries
    except FileNotFoundError:
        same = False
    if not same:
        raise ConfigurationMismatch(
            f"the programs in {sweep.runner.binaries.bin_dir} were replaced while they were measured",
            hint="run the command again",
        )
    return Measured(found, run.effective.as_json(), run.done.seconds, describe(read_machine()))


def ensure_base(work: Work, corpus: Corpus, path: Path) -> None:
    """The base logits of f16 on a text: those that an interrupted sweep left, or new ones."""
    if is_base(path, work.sweep):
        return
    work.tell(f"base logits of {corpus.name}")
    took = make_base(work.sweep, corpus, path)
    work.ledger.seconds += took
    work.forecast.learn(Configuration(F16), took)


def base_prefix(sweep: Sweep, corpus: Corpus) -> str:
    """How the names of all files begin that hold base logits of a text, or belong to them."""
    return sweep.origin(corpus).key(Configuration(F16))[:16]


def base_path(sweep: Sweep, corpus: Corpus, folder: Path) -> Path:
    """Where this machine has its base logits of a text in a folder that others may share.

    Only machines that compute the same may use them: else KLD would measure how machines differ. What a GPU computes is
    known of this machine alone.
    """
    where = kin(read_machine()) if sweep.runner.binaries.backend == "cpu" else platform.node()
    return folder / f"{base_prefix(sweep, corpus)}-{where}.logits"


def make_base(sweep: Sweep, corpus: Corpus, path: Path) -> float:
    """Write the base logits, under their name only when complete; the seconds that it took.

    Raises NoSpace, before anything runs if the disk cannot hold them.
    """
    most = min(sweep.chunks, (corpus.path.stat().st_size + 1) // sweep.ctx)
    if sweep.model.n_vocab:
        need_space(path.parent, base_bytes(sweep.model.n_vocab, sweep.ctx, most), f"{most} chunks of base logits")
    part = path.with_suffix(".part")
    try:
        with space_guard(path):
            base = write_base(sweep.runner, sweep.model, sweep.text(corpus), F16, part)
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    if not is_base(path, sweep):  # a stream that fills the disk fails without a word
        try:
            missing = base_bytes(sweep.model.n_vocab, sweep.ctx, base.chunks) - path.stat().st_size
            need_space(path.parent, missing, "the rest of the base logits")
        finally:
            path.unlink(missing_ok=True)
        raise BinaryFailed("llama-perplexity wrote incomplete base logits", how="no result")
    return base.run.done.seconds


def is_base(path: Path, sweep: Sweep) -> bool:
    """Whether complete base logits of this context are there."""
    try:
        with path.open("rb") as stream:
            magic, ctx, vocabulary, chunks = BASE_HEADER.unpack(stream.read(BASE_HEADER.size))
        size = path.stat().st_size
    except (OSError, struct.error):
        return False
    whole = size == base_bytes(vocabulary, ctx, chunks) if vocabulary > 0 and chunks > 0 else False
    return bool(magic == BASE_MAGIC and ctx == sweep.ctx and 0 < chunks <= sweep.chunks and whole)


def remove_bases(folder: Path, which: Callable[[str], bool]) -> None:
    """Remove base logits, and what belongs to them, by name."""
    for path in (*folder.glob("*.logits"), *folder.glob("*.part"), *folder.glob("*.base-lock")):
        if which(path.name):
            path.unlink(missing_ok=True)


def verdict(ledger: Ledger, log: Path | None) -> TurbotoolError | None:
    """The error that the command ends with: None if everything was measured, whatever came out."""
    if not ledger.failures:
        return None
    named = "; ".join(f"{job}: {error.message.partition(chr(10))[0]}" for job, error in ledger.failures.items())
    message = f"{len(ledger.failures)} of {ledger.ended} runs could not be measured: {named}"
    hint = f"read {log}" if log else None
    if any(isinstance(error, ConfigurationMismatch) for error in ledger.failures.values()):
        return ConfigurationMismatch(message, hint=hint)
    return BinaryFailed(message, how="failed cells", hint=hint)
