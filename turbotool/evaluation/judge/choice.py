"""The recommendation: the smallest KV memory whose loss stays inside the tolerance, and the command that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from turbotool.evaluation.cell import Configuration
from turbotool.evaluation.judge.contest import Contest
from turbotool.evaluation.judge.finding import MOST_CHUNKS
from turbotool.evaluation.judge.tolerance import OPEN
from turbotool.inputs.model import Model
from turbotool.kv.cachetype import F16, CachePair
from turbotool.kv.effective import Cache
from turbotool.kv.serving import LLAMA_SERVER, server_command
from turbotool.kv.size import MIB, calibration_bytes, expected_mib, kv_bytes

PRINTED_MIB = 0.006  # a cache's size is printed with two decimals


@dataclass(frozen=True)
class Memory:
    """MiB of the KV caches at `ctx` tokens. `exact` if the binary's own sizes confirm the calculation."""

    ctx: int
    mib: float
    exact: bool


@dataclass(frozen=True)
class Choice:
    """What to run: `memory` of it and of f16, the least favourable figures over the texts, why, and the command.

    `settled` says that no more chunks would change it, as far as intervals hold.
    """

    configuration: Configuration
    memory: Memory
    memory_f16: Memory
    mean_kld: float | None
    same_top: float | None
    reason: str
    command: str
    settled: bool

    @property
    def environment(self) -> dict[str, str]:
        return dict(self.configuration.knobs.environment)

    @property
    def saved_mib(self) -> float:
        return self.memory_f16.mib - self.memory.mib


def choose(contest: Contest, ctx: int) -> Choice:
    """The cheapest configuration inside the tolerance on every text; f16 if there is none.

    Of one pair of types a rotation is chosen over OFF, where that was measured, only if its KLD is lower by more than
    what makes no difference. Of several of one size it is the first one of the plan that no other beats by as much.
    """
    smaller, model = contest.smaller, contest.sweep.model
    if not smaller:
        return _choice(contest, Configuration(F16), "nothing smaller was asked for", ctx)
    tolerance = contest.criteria.tolerance
    winners = next((found for group in contest.sizes() if (found := [*filter(contest.is_winner, group)])), [])
    if not winners:
        reason = f"nothing smaller stays inside: {tolerance}{_doubt(contest, smaller)}"
        return _choice(contest, Configuration(F16), reason, ctx)
    best = contest.best(winners)
    cheaper = [one for one in smaller if one.bits_per_value(model) < best.bits_per_value(model)]
    reason = f"the smallest KV memory inside the tolerance: {tolerance}{_doubt(contest, cheaper)}"
    return _choice(contest, best, reason, ctx)


def _doubt(contest: Contest, outside: Sequence[Configuration]) -> str:
    """Which of these only their errors keep out, and how many chunks would tell."""
    near = {one: contest.standing(one) for one in outside if contest.is_possible(one)}
    told = [f"{one}{_more(found.chunks_more)}" for one, found in near.items() if found.state == OPEN and found.near]
    return f"; only their errors keep out {', '.join(told)}: measure more --chunks" if told else ""


def _more(chunks: int | None) -> str:
    return f" (about {chunks} more)" if chunks and chunks < MOST_CHUNKS else ""


def _choice(contest: Contest, configuration: Configuration, reason: str, ctx: int) -> Choice:
    sweep, found = contest.sweep, contest.found(configuration)
    calibrated, knobs = not configuration.calibration.is_off, configuration.knobs
    calibration = configuration.calibration if sweep.calibrates else None
    return Choice(
        configuration,
        memory(sweep.model, configuration.pair, ctx, _caches(contest, configuration), calibrated=calibrated),
        memory(sweep.model, F16, ctx, _caches(contest, Configuration(F16))),
        max((one.divergence.mean.value for one in found), default=None),
        min((one.divergence.same_top.value for one in found), default=None),
        reason,
        server_command(
            sweep.model.path, configuration.pair, ctx, environment=knobs.environment, calibration=calibration
        ),
        contest.settled,
    )


def _caches(contest: Contest, configuration: Configuration) -> tuple[Cache, ...]:
    return next((measured.effective.caches for measured in contest.found(configuration)), ())


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
