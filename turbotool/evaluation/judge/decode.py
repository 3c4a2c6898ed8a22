"""What the control of the decode path says: whether a cache loses token by token what it loses in a batch."""

from __future__ import annotations

from dataclasses import dataclass

from turbotool.errors import first_line
from turbotool.evaluation.cell import Configuration, Measured
from turbotool.evaluation.judge.finding import Equivalence
from turbotool.evaluation.measure.decode import decode_jobs
from turbotool.evaluation.measure.work import EvalLedger
from turbotool.evaluation.sweep import Corpus, Sweep
from turbotool.kv.cachetype import F16
from turbotool.programs.agreement import Agreement, agreement
from turbotool.programs.perplexity import most_noise

IDENTICAL, EQUAL, APART, UNMEASURED = "identical", "equal", "apart", "not measured"


@dataclass(frozen=True)
class DecodePath:
    """A cache on a text, a chunk at once (`batch`) and token by token (`single`).

    `agreed` is None if one of them could not be measured, `failure` then says why.
    """

    corpus: str
    configuration: Configuration
    batch: Measured | None
    single: Measured | None
    agreed: Agreement | None
    failure: str | None = None

    @property
    def ok(self) -> bool:
        return self.agreed is not None and self.agreed.ok

    @property
    def verdict(self) -> str:
        if self.agreed is None:
            return UNMEASURED
        return IDENTICAL if self.agreed.identical else EQUAL if self.agreed.ok else APART

    def __str__(self) -> str:
        return f"decode path of {self.configuration} on {self.corpus}: {self._said()}"

    def _said(self) -> str:
        if self.agreed is None or self.batch is None or self.single is None:
            return f"NOT MEASURED: {self.failure}"
        batch, single = (one.divergence.mean.value for one in (self.batch, self.single))
        count = len(self.batch.divergence.running)
        over = f"over {count} chunk{'s' * (count != 1)}"
        if self.agreed.identical:
            return f"token by token identical to a batch, {batch:.6f} nats {over}"
        told = f"token by token {single:.6f} nats, in a batch {batch:.6f}"
        if self.agreed.ok:
            return f"equal within {self.agreed.bound:.6f} nats: {told} {over}"
        apart = f"{self.agreed.difference:+.6f} {over}, at most {self.agreed.bound:.6f} is rounding"
        return f"NOT THAT OF A BATCH: {told}, {apart}"


def decode_path(
    sweep: Sweep, ledger: EvalLedger, corpus: Corpus, configuration: Configuration, equal: Equivalence
) -> DecodePath:
    """Judge what `measure_decode` measured.

    In a batch f16 is what it is compared with, to the last bit, and so without an error; token by token it is another
    computation of the same. That may lose as much as makes no difference.
    """
    jobs = decode_jobs(sweep, corpus, configuration)
    batch, single = map(ledger.measured.get, jobs)
    if batch is None or single is None:
        why = [ledger.failures[job] for job in jobs if job in ledger.failures]
        failure = first_line(why[0].message) if why else "it was not run"
        return DecodePath(corpus.name, configuration, batch, single, None, failure)
    floor = equal.ln_ppl if configuration.pair == F16 else most_noise(sweep.runner.binaries.backend)
    agreed = agreement(batch.divergence, single.divergence, floor=floor)
    return DecodePath(corpus.name, configuration, batch, single, agreed)
