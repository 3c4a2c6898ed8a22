"""What a worker of a Dask cluster does: one cell, with programs, model and text that are proven to be those asked for.

Nothing here runs on the client but the definitions.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from turbotool.errors import TurbotoolError
from turbotool.evaluation.cell import Measured, Origin
from turbotool.evaluation.identity import binaries_hash
from turbotool.evaluation.measure.base import base_path, is_base, make_base, remove_bases
from turbotool.evaluation.measure.single import FATAL, measured_cell
from turbotool.evaluation.sweep import Corpus, EvalJob, Sweep
from turbotool.programs.runner import Runner
from turbotool.system.digest import sha256_file
from turbotool.system.files import space_guard
from turbotool.system.machine import usable_cpus

ONE_AT_A_TIME = threading.Lock()  # a cell uses every CPU, however many tasks Dask would run at once


@dataclass(frozen=True)
class CellOutcome:
    """What came of a cell on a worker. `origin` is what the worker has; if another was asked for, nothing was run.

    `fatal` says that not only this cell failed. `log` is what the programs printed.
    """

    worker: str
    origin: Origin
    measured: Measured | None = None
    error: TurbotoolError | None = None
    fatal: bool = False
    log: str = ""


class WorkerHashes:
    """The sha256 of files, each read once by a worker as long as it does not change."""

    def sha256(self, path: Path) -> str:
        status = path.stat()
        return _sha256(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1024)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    return sha256_file(path)


def run_cell(sweep: Sweep, job: EvalJob, folder: Path) -> CellOutcome:
    """Measure a cell of a sweep here, with base logits in `folder`; the task that the client submits."""
    from distributed import get_worker

    worker = get_worker()
    stop = _cancelled(worker.state.tasks, worker.get_current_task())
    with ONE_AT_A_TIME, tempfile.TemporaryDirectory(prefix="turbotool-") as scratch:
        log = Path(scratch) / "log"
        runner = Runner(sweep.runner.binaries, Path(scratch), usable_cpus(), log, stop=stop, kept=sweep.runner.kept)
        here = replace(sweep, runner=runner)
        outcome = CellOutcome(worker.address, identify(here, job))
        if outcome.origin != sweep.origin(job):
            return outcome
        outcome = measure(here, job, folder, outcome)
        return replace(outcome, log=log.read_text(encoding="utf-8") if log.exists() else "")


def _cancelled(tasks: Mapping[Any, Any], key: object) -> Callable[[], bool]:
    """Whether the scheduler no longer wants a task that runs: its client cancelled it, or is gone."""

    def asked() -> bool:
        return key not in tasks or tasks[key].state == "cancelled"

    return asked


def identify(sweep: Sweep, job: EvalJob) -> Origin:
    """What this machine has at the paths of a sweep; an empty hash for what cannot be read."""
    hashes, calibration = WorkerHashes(), job.configuration.calibration.path
    return Origin(
        _hash(lambda: binaries_hash(hashes, sweep.runner.binaries)),
        _hash(lambda: hashes.sha256(sweep.model.path)),
        _hash(lambda: hashes.sha256(job.corpus.path)),
        sweep.ctx,
        sweep.chunks,
        _hash(lambda: hashes.sha256(calibration) if calibration else ""),
    )


def _hash(of: Callable[[], str]) -> str:
    try:
        return of()
    except OSError:
        return ""


def measure(sweep: Sweep, job: EvalJob, folder: Path, outcome: CellOutcome) -> CellOutcome:
    """The cell's figures, or why there are none."""
    base = None if sweep.streamed else base_path(sweep, job.corpus, folder)
    try:
        if base:
            shared_base(sweep, job.corpus, base)
    except TurbotoolError as error:
        return replace(outcome, error=error, fatal=True)
    try:
        return replace(outcome, measured=measured_cell(sweep, job, base, WorkerHashes()))
    except TurbotoolError as error:
        return replace(outcome, error=error, fatal=isinstance(error, FATAL))


def shared_base(sweep: Sweep, corpus: Corpus, base: Path) -> None:
    """Make the base logits unless they are there. Of several workers one does it."""
    from filelock import FileLock

    with space_guard(base):
        base.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(base.with_suffix(".base-lock"), timeout=sweep.text(corpus).timeout):
        if not is_base(base, sweep):
            make_base(sweep, corpus, base)


def clean(folder: Path, prefixes: Sequence[str]) -> None:
    """Remove the base logits of a sweep; they may lie in a folder of this machine alone."""
    remove_bases(folder, lambda name: name.startswith(tuple(prefixes)))
