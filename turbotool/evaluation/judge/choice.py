"""The recommendation: the smallest KV memory whose loss stays inside the tolerance, and the command that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from turbotool.evaluation.cell import Configuration, Measured
from turbotool.evaluation.judge.verdict import BETTER, KLD, OFF, WORSE, Comparison
from turbotool.evaluation.measure.work import EvalLedger
from turbotool.evaluation.sweep import Sweep
from turbotool.inputs.model import Model
from turbotool.kv.cachetype import F16, CachePair
from turbotool.kv.effective import Cache
from turbotool.kv.serving import LLAMA_SERVER, server_command
from turbotool.kv.size import MIB, calibration_bytes, expected_mib, kv_bytes

PRINTED_MIB = 0.006  # a cache's size is printed with two decimals
Z = 1.96  # standard errors on both sides of 95 %


@dataclass(frozen=True)
class Tolerance:
    """How much of f16's quality may be lost: mean KLD in nats at most, same top in percent at least."""

    mean_kld: float = 0.02
    same_top: float = 93.0

    def holds(self, measured: Measured) -> bool:
        """Both with their standard errors over tokens: 1.96 of them on the bad side."""
        return self._holds(measured, Z)

    def nearly_holds(self, measured: Measured) -> bool:
        """Both without their errors, which more chunks make smaller."""
        return self._holds(measured, 0.0)

    def _holds(self, measured: Measured, errors: float) -> bool:
        kld, top = measured.divergence.mean, measured.divergence.same_top
        return kld.value + errors * kld.error <= self.mean_kld and top.value - errors * top.error >= self.same_top

    def __str__(self) -> str:
        return f"mean KLD at most {self.mean_kld:g} nats and same top at least {self.same_top:g} %, errors included"


@dataclass(frozen=True)
class Memory:
    """MiB of the KV caches at `ctx` tokens. `exact` if the binary's own sizes confirm the calculation."""

    ctx: int
    mib: float
    exact: bool


@dataclass(frozen=True)
class Choice:
    """What to run: `memory` of it and of f16, the least favourable figures over the texts, why, and the command."""

    configuration: Configuration
    memory: Memory
    memory_f16: Memory
    mean_kld: float | None
    same_top: float | None
    reason: str
    command: str

    @property
    def environment(self) -> dict[str, str]:
        return dict(self.configuration.knobs.environment)

    @property
    def saved_mib(self) -> float:
        return self.memory_f16.mib - self.memory.mib


def choose(
    sweep: Sweep, ledger: EvalLedger, comparisons: Sequence[Comparison], tolerance: Tolerance, ctx: int
) -> Choice:
    """The cheapest configuration inside the tolerance on every text; f16 if there is none.

    Of one pair of types a rotation is chosen over OFF, where that was measured, only if its KLD is better beyond noise
    on some text and worse on none: a tolerance that one of them just meets and the other just misses is no difference.
    Of several, the one with the lowest KLD.
    """
    smaller = [one for one in sweep.configurations if one.pair != F16 and _worth_it(one, comparisons)]
    inside = [one for one in smaller if _holds(sweep, ledger, one, tolerance)]
    if not inside:
        if all(one.pair == F16 for one in sweep.configurations):
            return _choice(sweep, ledger, Configuration(F16), "nothing smaller was asked for", ctx)
        reason = f"nothing smaller stays inside: {tolerance}{_doubt(sweep, ledger, tolerance, smaller)}"
        return _choice(sweep, ledger, Configuration(F16), reason, ctx)
    best = min(inside, key=lambda one: (one.bits_per_value(sweep.model), _worst_kld(sweep, ledger, one)))
    cheaper = [one for one in smaller if one.bits_per_value(sweep.model) < best.bits_per_value(sweep.model)]
    doubt = _doubt(sweep, ledger, tolerance, cheaper)
    return _choice(sweep, ledger, best, f"the smallest KV memory inside the tolerance: {tolerance}{doubt}", ctx)


def _doubt(sweep: Sweep, ledger: EvalLedger, tolerance: Tolerance, outside: Sequence[Configuration]) -> str:
    """Which of these only their errors keep out."""
    near = [
        str(one) for one in outside if (found := _found(sweep, ledger, one)) and all(map(tolerance.nearly_holds, found))
    ]
    return f"; only their errors keep out {', '.join(near)}: measure more --chunks" if near else ""


def _found(sweep: Sweep, ledger: EvalLedger, configuration: Configuration) -> list[Measured]:
    jobs = [sweep.job(corpus, configuration) for corpus in sweep.corpora]
    return [ledger.measured[job] for job in jobs if job in ledger.measured]


def _holds(sweep: Sweep, ledger: EvalLedger, configuration: Configuration, tolerance: Tolerance) -> bool:
    found = _found(sweep, ledger, configuration)
    return len(found) == len(sweep.corpora) and all(one.is_finite and tolerance.holds(one) for one in found)


def _worst_kld(sweep: Sweep, ledger: EvalLedger, configuration: Configuration) -> float:
    return max(measured.divergence.mean.value for measured in _found(sweep, ledger, configuration))


def _worth_it(configuration: Configuration, comparisons: Sequence[Comparison]) -> bool:
    verdicts = {
        found.verdict
        for found in comparisons
        if (found.configuration, found.against, found.quantity) == (configuration, OFF, KLD)
    }
    return not verdicts or (BETTER in verdicts and WORSE not in verdicts)


def _choice(sweep: Sweep, ledger: EvalLedger, configuration: Configuration, reason: str, ctx: int) -> Choice:
    found = _found(sweep, ledger, configuration)
    calibrated, knobs = not configuration.calibration.is_off, configuration.knobs
    calibration = configuration.calibration if sweep.calibrates else None
    return Choice(
        configuration,
        memory(sweep.model, configuration.pair, ctx, _caches(sweep, ledger, configuration), calibrated=calibrated),
        memory(sweep.model, F16, ctx, _caches(sweep, ledger, Configuration(F16))),
        max((one.divergence.mean.value for one in found), default=None),
        min((one.divergence.same_top.value for one in found), default=None),
        reason,
        server_command(
            sweep.model.path, configuration.pair, ctx, environment=knobs.environment, calibration=calibration
        ),
    )


def _caches(sweep: Sweep, ledger: EvalLedger, configuration: Configuration) -> tuple[Cache, ...]:
    return next((measured.effective.caches for measured in _found(sweep, ledger, configuration)), ())


def memory(model: Model, pair: CachePair, ctx: int, caches: Sequence[Cache], *, calibrated: bool = False) -> Memory:
    """The KV caches of llama-server with `ctx` tokens and what they are calibrated with, from the model's own metadata.

    Where the `caches` that the binary reported at the measured context are others than those, their sizes are scaled to
    `ctx` instead, which is too much for windows.
    """
    wanted = expected_mib(model.kv, pair, caches)
    beside = calibration_bytes(model.kv, pair) if calibrated else 0
    calculated = (kv_bytes(model.kv, pair, ctx, LLAMA_SERVER) + beside) / MIB
    if not caches or (wanted and all(abs(a - one.mib) <= PRINTED_MIB for a, one in zip(wanted, caches, strict=True))):
        return Memory(ctx, calculated, exact=bool(caches))
    cells = max(cache.cells * cache.streams for cache in caches)
    return Memory(ctx, sum(cache.mib for cache in caches) / cells * ctx, exact=False)
