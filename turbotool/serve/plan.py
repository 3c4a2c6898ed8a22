"""What is served: the context, the cache, and what else would fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from turbotool.errors import DoesNotFit
from turbotool.evaluation.cell import Configuration
from turbotool.inputs.model import Model
from turbotool.kv.cachetype import CachePair
from turbotool.kv.serving import Serving, server_words
from turbotool.kv.size import MIB, kv_bytes
from turbotool.memory.plan import Budget, MemoryRow, make_plan
from turbotool.memory.text import GIB, size
from turbotool.programs.binaries import Binaries
from turbotool.serve.losses import Evidence, Loss
from turbotool.serve.pool import Pool
from turbotool.serve.words import PROMPTS, has
from turbotool.system.process import display

SHORTEST = 4096  # tokens: less is served only if it is asked for
PROMPTS_MIB = 8192  # of main memory, which llama-server keeps earlier prompts in unless told otherwise


@dataclass(frozen=True)
class Wanted:
    """What is asked for: tokens (None: as many as trained for), the most mean KLD in nats (None: any), the caches.

    `words` go to llama-server as they are.
    """

    ctx: int | None
    quality: float | None
    pairs: tuple[CachePair, ...]
    serving: Serving
    words: tuple[str, ...] = ()

    def allows(self, loss: Loss | None) -> bool:
        """A loss that nobody knows is allowed where any is."""
        return self.quality is None or (loss is not None and loss.most <= self.quality)


@dataclass(frozen=True)
class Offer:
    """A cache that the programs make for the model: how, what it loses (None: nobody knows), and what it takes.

    `kv` are bytes at the context that is served, with the calibration; `largest` is the largest context that fits.
    """

    configuration: Configuration
    loss: Loss | None
    bits: float
    kv: int
    largest: int
    allowed: bool

    @property
    def rank(self) -> tuple[float, float]:
        """Less is better: the loss, then the memory."""
        return (self.loss.kld.value if self.loss else math.inf), self.bits


@dataclass(frozen=True)
class ServePlan:
    """What is served with what, how much memory that takes, and what else there is. `ctx` is in tokens."""

    model: Model
    binaries: Binaries
    pool: Pool
    budget: Budget
    wanted: Wanted
    evidence: Evidence
    ctx: int
    chosen: Offer
    offers: tuple[Offer, ...]
    states: int

    @property
    def environment(self) -> dict[str, str]:
        """The variables that the cache asks for, and those with which the programs find a device."""
        return {**dict(self.binaries.env), **self.chosen.configuration.knobs.environment}

    @property
    def spare(self) -> int:
        """Bytes that nothing is planned for."""
        return self.budget.left - self.chosen.kv - self.states

    @property
    def prompts_mib(self) -> int | None:
        """How much earlier prompts may take, where that is less than llama-server would; None: as it would."""
        if not self.pool.main or has(self.wanted.words, PROMPTS) or self.spare >= PROMPTS_MIB * MIB:
            return None
        return max(0, self.spare // MIB)

    def words(self, extra: Sequence[str] = ()) -> list[str]:
        """The whole command line; what the user typed stands last, `extra` before it."""
        served = server_words(self.model.path, self.chosen.configuration.pair, self.ctx, self.wanted.serving)
        prompts = [] if self.prompts_mib is None else [PROMPTS[1], str(self.prompts_mib)]
        program = [str(word) for word in self.binaries.command("llama-server")]
        return [*program, *served, *prompts, *extra, *self.wanted.words]

    @property
    def command(self) -> str:
        """What to type to serve the same without turbotool."""
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        return " ".join([*variables, display(self.words())])


def plan_server(
    model: Model, binaries: Binaries, pool: Pool, budget: Budget, wanted: Wanted, evidence: Evidence
) -> ServePlan:
    """The longest context up to the one that is wanted, with the cache that loses least there.

    Raises DoesNotFit where no cache that is allowed has room for it, ModelError where caches are not known.
    """
    ctx = wanted.ctx or model.n_ctx_train
    memory = make_plan(model, wanted.pairs, (ctx,), wanted.serving, budget)
    found = [_offer(model, row, ctx, wanted, evidence) for row in memory.rows if not row.refused]
    usable = [one for one in found if one.allowed]
    left = budget.left - memory.states
    if wanted.ctx is None:
        ctx = max((one.largest for one in usable), default=0)
        fitting = [one for one in usable if one.largest >= ctx >= min(SHORTEST, model.n_ctx_train)]
    else:
        fitting = [one for one in usable if one.kv <= left]
    if not fitting:
        raise _refused(model, budget, wanted, found, memory.states)
    if ctx < (wanted.ctx or model.n_ctx_train):
        rows = {row.pair: row for row in memory.rows}
        found = [_offer(model, rows[one.configuration.pair], ctx, wanted, evidence) for one in found]
        fitting = [one for one in found if one.allowed and one.largest >= ctx]
    chosen = min(fitting, key=lambda one: one.rank)
    return ServePlan(model, binaries, pool, budget, wanted, evidence, ctx, chosen, tuple(found), memory.states)


def _offer(model: Model, row: MemoryRow, ctx: int, wanted: Wanted, evidence: Evidence) -> Offer:
    configuration, loss = evidence.of(row.pair)
    kv = kv_bytes(model.kv, row.pair, ctx, wanted.serving) + row.calibration
    return Offer(configuration, loss, row.bits, kv, row.largest or 0, wanted.allows(loss))


def _refused(model: Model, budget: Budget, wanted: Wanted, offers: Sequence[Offer], states: int) -> DoesNotFit:
    """What does not fit, and what would: a shorter context, more loss, or more memory."""
    name = model.path.name
    if not offers:
        return DoesNotFit(f"{name}: the programs make none of these caches for it", hint="name others with --kv")
    ctx = wanted.ctx or min(SHORTEST, model.n_ctx_train)

    def cost(one: Offer) -> int:
        return _cost(model, wanted, one, ctx, budget, states)

    would = []
    usable = [one for one in offers if one.allowed]
    longest = max(usable, key=lambda one: (one.largest, *(-figure for figure in one.rank)), default=None)
    if longest and longest.largest:
        would.append(f"--ctx {longest.largest} ({longest.configuration})")
    more = [one for one in offers if not one.allowed and one.loss and cost(one) <= budget.total]
    if more:
        least = min(more, key=lambda one: one.rank)
        would.append(f"--quality {_above(least)} ({least.configuration})")
    if usable:
        smallest = min(usable, key=cost)
        would.append(f"--memory {math.ceil(cost(smallest) / GIB * 10) / 10:g}GiB ({smallest.configuration})")
    return DoesNotFit(f"{name}: {_lack(budget, wanted, ctx)}", hint=", or ".join(would) or "name others with --kv")


def _lack(budget: Budget, wanted: Wanted, ctx: int) -> str:
    """For what there is no room."""
    if budget.left <= 0:
        return (
            f"the model takes {size(budget.model)} and compute buffers {size(budget.reserve)} (--reserve), "
            f"there are {size(budget.total)}"
        )
    bound = "" if wanted.quality is None else f" with a KLD up to {wanted.quality:g}"
    return (
        f"no cache{bound} holds {ctx} tokens in the {size(budget.left)} "
        f"that the model and compute buffers leave of {size(budget.total)}"
    )


def _cost(model: Model, wanted: Wanted, offer: Offer, ctx: int, budget: Budget, states: int) -> int:
    """Bytes of everything at a context."""
    at = wanted.ctx or model.n_ctx_train
    pair = offer.configuration.pair
    calibration = offer.kv - kv_bytes(model.kv, pair, at, wanted.serving)
    return budget.model + budget.reserve + states + calibration + kv_bytes(model.kv, pair, ctx, wanted.serving)


def _above(offer: Offer) -> str:
    """A bound with two digits that the loss stays below."""
    most = offer.loss.most if offer.loss else math.inf
    step = 10.0 ** (math.floor(math.log10(most)) - 1) if 0 < most < math.inf else 1.0
    return f"{math.ceil(most / step) * step:.6g}"
