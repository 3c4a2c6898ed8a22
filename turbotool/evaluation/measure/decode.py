"""The control of the path that people decode on: what is recommended, a chunk in one batch and token by token."""

from __future__ import annotations

from dataclasses import replace

from turbotool.errors import TurbotoolError
from turbotool.evaluation.cell import Configuration
from turbotool.evaluation.measure.local import run_sweep
from turbotool.evaluation.measure.single import FATAL
from turbotool.evaluation.measure.work import EvalLedger
from turbotool.evaluation.store import Store
from turbotool.evaluation.sweep import FEWEST_SCORED, Corpus, EvalJob, Sweep
from turbotool.programs.perplexity import scored
from turbotool.system.output import Output

TOKEN_BY_TOKEN = 1


def decode_jobs(sweep: Sweep, corpus: Corpus, configuration: Configuration) -> tuple[EvalJob, EvalJob]:
    """A whole chunk at once, and token by token."""
    whole, single = (sweep.job(corpus, configuration, ubatch) for ubatch in (sweep.ctx, TOKEN_BY_TOKEN))
    return whole, single


def measure_decode(sweep: Sweep, store: Store, configuration: Configuration, out: Output) -> EvalLedger:
    """Both runs on each text, over one chunk, or as many as have the tokens of which there are statistics.

    They run here, wherever the sweep did: two machines need not compute the same. A run that fails is in the ledger.
    Raises NoSpace, StoreError and Interrupted.
    """
    found = EvalLedger()
    for corpus in sweep.corpora:
        out.say(f"decode path of {configuration} on {corpus.name}: a chunk at once, and token by token")
        one = _measure(sweep, store, corpus, configuration, out)
        found.measured |= one.measured
        found.failures |= one.failures
    return found


def _measure(sweep: Sweep, store: Store, corpus: Corpus, configuration: Configuration, out: Output) -> EvalLedger:
    part = replace(
        sweep,
        corpora=(corpus,),
        configurations=(configuration,),
        chunks=-(-FEWEST_SCORED // scored(sweep.ctx)),
        controls=False,
        ubatches=(sweep.ctx, TOKEN_BY_TOKEN),
    )
    try:
        return run_sweep(part, store, sweep.runner.work, out)
    except FATAL:
        raise
    except TurbotoolError as error:  # of the base logits
        return EvalLedger(failures=dict.fromkeys(decode_jobs(sweep, corpus, configuration), error))
