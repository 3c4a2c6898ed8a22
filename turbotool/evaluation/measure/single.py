"""One run of one cell."""

from __future__ import annotations

from pathlib import Path

from turbotool.errors import Busy, ClusterError, ConfigurationMismatch, Interrupted, NoSpace, StoreError
from turbotool.evaluation.cell import Measured
from turbotool.evaluation.identity import FileHashes, binaries_hash
from turbotool.evaluation.sweep import EvalJob, Sweep
from turbotool.programs.kvdivergence import compare_streamed
from turbotool.programs.perplexity import compare
from turbotool.system.machine import describe, read_machine

FATAL = (Interrupted, NoSpace, Busy, StoreError, ClusterError)


def measured_cell(sweep: Sweep, job: EvalJob, base: Path | None, hashes: FileHashes) -> Measured:
    """One run of the programs, with base logits that are stored, or f16 beside it where there are none.

    What another build measured must not pass for this one's: raises ConfigurationMismatch if they were replaced.
    """
    text, configuration = sweep.text(job.corpus, job.ubatch), job.configuration
    pair, knobs, calibration = configuration.pair, configuration.knobs, configuration.calibration
    if base:
        found, run = compare(sweep.runner, sweep.model, text, pair, base, knobs, calibration)
        stored = base.stat().st_size
    else:
        found, run = compare_streamed(sweep.runner, sweep.model, text, pair, knobs, calibration)
        stored = 0
    try:
        same = binaries_hash(hashes, sweep.runner.binaries) == sweep.binaries
    except FileNotFoundError:
        same = False
    if not same:
        raise ConfigurationMismatch(
            f"the programs in {sweep.runner.binaries.bin_dir} were replaced while they were measured",
            hint="run the command again",
        )
    return Measured(found, run.effective, run.done.seconds, describe(read_machine()), run.done.peak, stored)
