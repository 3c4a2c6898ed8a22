"""One run of one cell."""

from __future__ import annotations

from pathlib import Path

from turbotool.errors import Busy, ClusterError, ConfigurationMismatch, Interrupted, NoSpace, StoreError
from turbotool.evaluation.cell import Measured
from turbotool.evaluation.identity import FileHashes, binaries_hash
from turbotool.evaluation.sweep import EvalJob, Sweep
from turbotool.programs.perplexity import compare
from turbotool.system.machine import describe, read_machine

FATAL = (Interrupted, NoSpace, Busy, StoreError, ClusterError)


def measured_cell(sweep: Sweep, job: EvalJob, base: Path, hashes: FileHashes) -> Measured:
    """One run of the programs.

    What another build measured must not pass for this one's: raises ConfigurationMismatch if they were replaced.
    """
    text, configuration = sweep.text(job.corpus, job.ubatch), job.configuration
    pair, knobs, calibration = configuration.pair, configuration.knobs, configuration.calibration
    found, run = compare(sweep.runner, sweep.model, text, pair, base, knobs, calibration)
    try:
        same = binaries_hash(hashes, sweep.runner.binaries) == sweep.binaries
    except FileNotFoundError:
        same = False
    if not same:
        raise ConfigurationMismatch(
            f"the programs in {sweep.runner.binaries.bin_dir} were replaced while they were measured",
            hint="run the command again",
        )
    return Measured(found, run.effective, run.done.seconds, describe(read_machine()))
