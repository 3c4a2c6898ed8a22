"""What the KV caches of a model take at several contexts, and what of it fits a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from turbotool.errors import ModelError
from turbotool.inputs.model import Model
from turbotool.kv.cachetype import CachePair
from turbotool.kv.serving import Serving, server_command
from turbotool.kv.size import bits_per_value, calibration_bytes, kv_bytes, largest_ctx, refusal, state_bytes


@dataclass(frozen=True)
class Budget:
    """Bytes that there are, those of the model file, and those that are left alone for compute buffers."""

    total: int
    model: int
    reserve: int

    @property
    def left(self) -> int:
        return self.total - self.model - self.reserve


@dataclass(frozen=True)
class Size:
    """Bytes of the KV caches at a context; `fits` is None without a budget."""

    ctx: int
    kv: int
    fits: bool | None


@dataclass(frozen=True)
class MemoryRow:
    """One pair of types: its sizes and the largest context that fits, up to what the model was trained for.

    `calibration` are bytes that come on top of each size. `refused` says why there are no such caches; then there is
    nothing else.
    """

    pair: CachePair
    bits: float
    refused: str = ""
    sizes: tuple[Size, ...] = ()
    largest: int | None = None
    calibration: int = 0


@dataclass(frozen=True)
class MemoryPlan:
    model: Model
    serving: Serving
    budget: Budget | None
    rows: tuple[MemoryRow, ...]

    @property
    def states(self) -> int:
        """Bytes of recurrent states, which every cache comes on top of."""
        return state_bytes(self.model.kv, self.serving)

    def command(self, row: MemoryRow, ctx: int) -> str:
        return server_command(self.model.path, row.pair, ctx, self.serving)


def make_plan(
    model: Model, pairs: Sequence[CachePair], contexts: Sequence[int], serving: Serving, budget: Budget | None
) -> MemoryPlan:
    """Raises ModelError for a model whose caches are not known."""
    if model.kv.problem:
        raise ModelError(
            f"{model.path}: {model.kv.problem}",
            hint="start llama-server -lv 4 with it: it reports 'KV buffer size', if there is one",
        )
    rows = (_row(model, pair, contexts, serving, budget) for pair in dict.fromkeys(pairs))
    return MemoryPlan(model, serving, budget, tuple(rows))


def _row(model: Model, pair: CachePair, contexts: Sequence[int], serving: Serving, budget: Budget | None) -> MemoryRow:
    shape = model.kv
    if refused := refusal(shape, pair):
        return MemoryRow(pair, 0.0, refused)
    calibration = calibration_bytes(shape, pair)
    room = budget.left - state_bytes(shape, serving) - calibration if budget else None
    sizes = []
    for ctx in contexts:
        kv = kv_bytes(shape, pair, ctx, serving)
        sizes.append(Size(ctx, kv, None if room is None else kv <= room))
    largest = largest_ctx(shape, pair, serving, budget.left, model.n_ctx_train) if budget else None
    return MemoryRow(pair, bits_per_value(shape, pair), "", tuple(sizes), largest, calibration)
