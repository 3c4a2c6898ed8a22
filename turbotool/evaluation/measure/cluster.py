"""The cells of a sweep as independent tasks on the workers of a Dask cluster; the client keeps what they measure.

Workers find programs, model and texts at the client's paths, as on a shared file system, and prove by their hashes that
they are the same.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from turbotool import __version__
from turbotool.errors import BinaryFailed, ClusterError, ConfigurationMismatch
from turbotool.evaluation.cell import Origin
from turbotool.evaluation.measure.base import base_prefix
from turbotool.evaluation.measure.work import Work
from turbotool.evaluation.measure.worker import CellOutcome, clean, run_cell
from turbotool.evaluation.sweep import EvalJob, Sweep
from turbotool.programs.runner import Runner
from turbotool.system.extras import require_library
from turbotool.system.output import Output

if TYPE_CHECKING:  # the command line imports this module to print its help
    from distributed import Client, Future

REQUIREMENT = "distributed>=2024.8"
CONNECT_SECONDS = 10
POLL_SECONDS = 1.0
PATIENCE = 60.0  # seconds in which a worker must come, or come back
START = "dask worker {} --nthreads 1, on each machine"
PARTS = {"binaries": "programs", "model": "model", "corpus": "text", "calibration": "calibration"}


def require_scheduler(address: str) -> None:
    """Raise ToolMissing without Dask, and ClusterError if no scheduler answers."""
    require_library(REQUIREMENT, "dask", "--scheduler needs")
    with connected(address):
        pass


@contextlib.contextmanager
def connected(address: str) -> Iterator[Client]:
    """A client of the scheduler. Raises ClusterError."""
    # what they say of lost workers and connections, in many lines, is said by us in one
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    client = _connect(address)
    if isinstance(client, str):
        # A client that never connected waits for the lock under which another one starts when it is finalized: now.
        gc.collect()
        raise ClusterError(
            f"no Dask scheduler answers at {address}: {client}",
            hint=f"dask scheduler, then {START.format('ITS_ADDRESS')}",
        )
    try:
        yield client
    finally:
        client.close()


def _connect(address: str) -> Client | str:
    """A client, or why there is none: no exception keeps alive what it left behind."""
    from distributed import Client

    try:
        return Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, TypeError) as error:
        return str(error)


def measure_all(work: Work, folder: Path, address: str, out: Output) -> None:
    """Every run of the queue, at most one on a worker at a time; `folder` is where workers keep base logits.

    A cell whose worker dies is run by another one. Whatever ends this, Ctrl-C included, cancels the tasks that are left
    and what they run. Raises ClusterError, ConfigurationMismatch if no worker has what is measured, and what a task
    found to concern all of them.
    """
    prefixes = [base_prefix(work.sweep, corpus) for corpus in dict.fromkeys(job.corpus for job in work.queue)]
    with connected(address) as client:
        crew = Crew(client, address, out)
        pending: dict[Future, EvalJob] = {}
        try:
            _measure(work, crew, pending, folder)
        except BaseException as error:
            with contextlib.suppress(Exception):  # the scheduler may be what was lost
                client.cancel(list(pending), force=True)
            if isinstance(error, CancelledError):  # of a future, wherever it was asked
                raise _lost(address) from error
            raise
        with contextlib.suppress(OSError):
            client.run(clean, folder, prefixes, on_error="ignore")
    clean(folder, prefixes)


@dataclass
class Crew:
    """The workers of a cluster. `unfit` are those that must not measure, and why."""

    client: Client
    address: str
    out: Output
    unfit: dict[str, str] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    since: float | None = None

    def fit(self) -> list[str]:
        """Those that may measure. Raises ClusterError or ConfigurationMismatch if there is none for too long."""
        try:
            present = set(self.client.nthreads())
            self._look_at(present - self.known)
        except (OSError, ValueError) as error:  # ValueError: a client that gave up
            raise _lost(self.address) from error
        found = sorted(present - self.unfit.keys())
        if found:
            self.since = None
            return found
        self.since = self.since or time.monotonic()
        hopeless = bool(present) and self.known == self.unfit.keys()
        if hopeless or time.monotonic() - self.since > PATIENCE:
            raise self._nobody()
        return []

    def _look_at(self, newcomers: set[str]) -> None:
        """Find out which version of turbotool they have: what they return must mean what it means here."""
        from importlib.metadata import version

        self.known |= newcomers
        told = self.client.run(version, "turbotool", workers=list(newcomers), on_error="return") if newcomers else {}
        for worker in newcomers:
            if told.get(worker) != __version__:
                has = told[worker] if isinstance(told.get(worker), str) else "none"
                self.dismiss(worker, f"turbotool there is {has}, here it is {__version__}")

    def dismiss(self, worker: str, why: str) -> None:
        """Send nothing more to a worker."""
        self.known.add(worker)
        if worker not in self.unfit:
            self.unfit[worker] = why
            self.out.warn(f"worker {worker} is not used: {why}")

    def _nobody(self) -> ClusterError | ConfigurationMismatch:
        if not self.unfit:
            return ClusterError(
                f"the scheduler at {self.address} has had no worker for {PATIENCE:.0f} s",
                hint=f"{START.format(self.address)}; then run the command again",
            )
        whys = "; ".join(f"{worker}: {why}" for worker, why in self.unfit.items())
        return ConfigurationMismatch(
            f"no worker of {self.address} has what is measured: {whys}",
            hint="give the workers the same files at the same paths, and the same turbotool[dask]",
        )


def _measure(work: Work, crew: Crew, pending: dict[Future, EvalJob], folder: Path) -> None:
    import distributed

    waiting = list(work.queue)
    ours = work.sweep.runner
    task = replace(work.sweep, runner=Runner(ours.binaries, folder, 1, kept=ours.kept))  # nothing of this machine
    while waiting or pending:
        fit = crew.fit()
        work.at_once = max(1, len(fit))
        while waiting and len(pending) < len(fit):
            job = waiting.pop(0)
            pending[_submit(crew, task, job, folder, fit)] = job
        work.tell(f"{len(pending)} at once" if pending else "waiting for workers")
        if not pending:
            time.sleep(POLL_SECONDS)
            continue
        with contextlib.suppress(distributed.TimeoutError):
            distributed.wait(list(pending), timeout=POLL_SECONDS, return_when="FIRST_COMPLETED")
        for future in [future for future in pending if future.done()]:
            job = pending.pop(future)
            outcome = _outcome(future, job)
            future.release()  # else it is measured again if the worker that still holds it dies
            if isinstance(outcome, CellOutcome) and (why := unlike(outcome.origin, work.sweep.origin(job))):
                crew.dismiss(outcome.worker, why)
                waiting.insert(0, job)
                continue
            _settle(work, job, outcome)
            work.queue.remove(job)


def _submit(crew: Crew, sweep: Sweep, job: EvalJob, folder: Path, fit: list[str]) -> Future:
    """Any worker may take it, new ones too, unless some are unfit."""
    workers = fit if crew.unfit else None
    return crew.client.submit(
        run_cell, sweep, job, folder, workers=workers, allow_other_workers=bool(workers), pure=False
    )


def _lost(address: str) -> ClusterError:
    return ClusterError(f"the scheduler at {address} was lost", hint="run the command again: what was measured is kept")


def _outcome(future: Future, job: EvalJob) -> CellOutcome | BinaryFailed:
    """What a task came to; a failure if its workers died of it. Raises CancelledError if the scheduler is lost."""
    from distributed import KilledWorker

    try:
        outcome: CellOutcome = future.result()
    except CancelledError:
        raise
    except KilledWorker as error:
        return BinaryFailed(f"each worker that ran {job} died: {error}", how="no result")
    except Exception as error:  # whatever a task of another machine may raise
        return BinaryFailed(f"a worker could not run it: {type(error).__name__}: {error}", how="no result")
    return outcome


def unlike(has: Origin, wanted: Origin) -> str:
    """How what a worker has differs from what is measured; empty if it does not."""
    found = []
    for name, what in PARTS.items():
        one, other = getattr(has, name), getattr(wanted, name)
        if one != other:
            found.append(
                f"sha256 of its {what} is {one[:12]}, not {other[:12]}" if one else f"it cannot read the {what}"
            )
    return "; ".join(found)


def _settle(work: Work, job: EvalJob, outcome: CellOutcome | BinaryFailed) -> None:
    """Enter what came of a run, and its log. Raises the error of one that concerns all of them."""
    if isinstance(outcome, BinaryFailed):
        work.ledger.failures[job] = outcome
        return
    log = work.sweep.runner.log
    if log:
        with log.open("a", encoding="utf-8") as stream:
            stream.write(f"# on worker {outcome.worker}\n{outcome.log}")
    if outcome.error and outcome.fatal:
        if isinstance(outcome.error, BinaryFailed):
            outcome.error.hint = f"see {log}"  # the worker's own log is gone
        raise outcome.error
    if outcome.error:
        work.ledger.failures[job] = outcome.error
    if outcome.measured:
        work.settle(job, outcome.measured)
