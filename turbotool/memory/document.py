"""A memory plan as one JSON document."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import UNSET, UnsetType

from turbotool.memory.plan import Budget, MemoryPlan, MemoryRow
from turbotool.system import documents


@dataclass(frozen=True)
class LayersFields:
    """Layers that share a cache: how many tokens each looks back (null: all), and values a token of all of them."""

    layers: int
    window: int | None
    k_values: int
    v_values: int


@dataclass(frozen=True)
class BudgetFields:
    """Memory that there is, what of it the model and compute buffers take, and what is left for caches and states."""

    total_bytes: int
    model_bytes: int
    reserve_bytes: int
    left_bytes: int


@dataclass(frozen=True)
class SizeFields:
    """The caches at a context in tokens, whether they fit the budget (null without one), and how to serve that."""

    ctx: int
    kv_bytes: int
    fits: bool | None
    command: str


@dataclass(frozen=True)
class RowFields:
    """One pair of cache types. If the programs refuse it, `refused` says why, and there is nothing else.

    `largest_ctx` is the largest context that fits the budget, up to what the model was trained for; null without one.
    `calibration_bytes` come on top of each size.
    """

    k: str
    v: str
    refused: str | None
    bits_per_value: float | UnsetType = UNSET
    sizes: tuple[SizeFields, ...] | UnsetType = UNSET
    largest_ctx: int | UnsetType | None = UNSET
    largest_command: str | UnsetType | None = UNSET
    calibration_bytes: int | UnsetType = UNSET


@documents.document("plan")
@dataclass(frozen=True)
class PlanDocument:
    """What the KV caches of a model take at contexts, in bytes, and what of it fits a budget.

    `sequences` share the tokens of a context if `shared`, else each has them for itself; `state_bytes` of recurrent
    layers come on top of every cache.
    """

    ok: bool
    model: str
    architecture: str
    trained_ctx: int
    caches: tuple[LayersFields, ...]
    recurrent_layers: int
    state_bytes: int
    sequences: int
    shared: bool
    budget: BudgetFields | None
    rows: tuple[RowFields, ...]


def document(plan: MemoryPlan) -> PlanDocument:
    """The document of `turbotool plan --json`."""
    model = plan.model
    return PlanDocument(
        ok=True,
        model=model.path.name,
        architecture=model.arch,
        trained_ctx=model.n_ctx_train,
        caches=tuple(LayersFields(len(one.k), one.window, sum(one.k), sum(one.v)) for one in model.kv.caches),
        recurrent_layers=model.kv.recurrent_layers,
        state_bytes=plan.states,
        sequences=plan.serving.sequences,
        shared=plan.serving.shared,
        budget=_budget(plan.budget) if plan.budget else None,
        rows=tuple(_row(plan, row) for row in plan.rows),
    )


def _budget(budget: Budget) -> BudgetFields:
    return BudgetFields(budget.total, budget.model, budget.reserve, budget.left)


def _row(plan: MemoryPlan, row: MemoryRow) -> RowFields:
    if row.refused:
        return RowFields(row.pair.k, row.pair.v, row.refused)
    return RowFields(
        k=row.pair.k,
        v=row.pair.v,
        refused=None,
        bits_per_value=row.bits,
        sizes=tuple(SizeFields(one.ctx, one.kv, one.fits, plan.command(row, one.ctx)) for one in row.sizes),
        largest_ctx=row.largest,
        largest_command=plan.command(row, row.largest) if row.largest else None,
        calibration_bytes=row.calibration,
    )
