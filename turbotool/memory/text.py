"""A memory plan as text: what the model keeps, the table, what is refused and why, and what to type."""

from __future__ import annotations

from collections.abc import Sequence

from turbotool.inputs.shape import KvShape
from turbotool.kv.size import MIB
from turbotool.memory.plan import MemoryPlan, MemoryRow, Size
from turbotool.report.table import NOTHING, aligned

GIB = 1 << 30
QUALITY = "what each cache costs this model in quality: turbotool eval MODEL"


def text(plan: MemoryPlan) -> str:
    """For people: what the model keeps, the table, what is refused and why, and what to type."""
    parts = [described(plan), table(plan)]
    refused = [f"{row.pair.short}: {row.refused}" for row in plan.rows if row.refused]
    if refused:
        parts.append("refused by the programs:\n  " + "\n  ".join(refused))
    return "\n\n".join([*parts, *advice(plan), *([QUALITY] if len(plan.rows) > 1 else [])])


def described(plan: MemoryPlan) -> str:
    """The model, how it is served, and where the budget goes."""
    model, serving, budget = plan.model, plan.serving, plan.budget
    lines = [f"{model.path.name}: {model.arch}, trained for {model.n_ctx_train} tokens"]
    lines += [f"keeps {', '.join(_layers(model.kv))}"]
    if plan.states:
        per = f"for {serving.sequences} sequences" if serving.sequences > 1 else "for one sequence"
        lines.append(f"recurrent states: {size(plan.states)} {per}, whatever the cache and the context")
    if serving.shared:
        lines.append(f"as llama-server does by itself: {serving.sequences} sequences share the tokens of the context")
    elif serving.sequences > 1:
        lines.append(f"{serving.sequences} sequences, each with the tokens of the context for itself")
    if budget:
        lines.append(
            f"budget {size(budget.total)} - model {size(budget.model)} - compute buffers {size(budget.reserve)} "
            f"(--reserve) = {size(budget.left)} for KV caches{' and states' if plan.states else ''}"
        )
        lines.append(
            "not counted: what llama-server keeps of earlier prompts, up to 8 GiB of main memory (--cache-ram)"
        )
    return "\n".join(lines)


def _layers(shape: KvShape) -> list[str]:
    found = []
    for cache in shape.caches:
        span = "all tokens" if cache.window is None else f"the last {cache.window} tokens"
        found.append(f"{span} in {len(cache.k)} layers" + (", K alone (MLA)" if shape.mla else ""))
    if shape.recurrent_layers:
        found.append(f"a recurrent state in {shape.recurrent_layers} layers")
    return found


def table(plan: MemoryPlan) -> str:
    """Sizes of the KV caches; what does not fit the budget stands in brackets."""
    rows = [row for row in plan.rows if not row.refused]
    if not rows or not plan.model.kv.caches:
        return "no KV cache" if rows else "none of these caches can be made for this model"
    heads = ["K/V", "bits per value", *(f"{one.ctx} tokens" for one in rows[0].sizes)]
    heads += ["largest context"] if plan.budget else []
    lines = [heads]
    for row in rows:
        line = [row.pair.short, f"{row.bits:g}", *(_entry(one) for one in row.sizes)]
        lines.append([*line, _largest(plan, row)] if plan.budget else line)
    notes = (
        [" (in brackets: more than the budget)"] if any(one.fits is False for row in rows for one in row.sizes) else []
    )
    return "\n".join([aligned(lines, [True] + [False] * (len(heads) - 1)), *notes])


def _entry(one: Size) -> str:
    return f"({size(one.kv)})" if one.fits is False else size(one.kv)


def _largest(plan: MemoryPlan, row: MemoryRow) -> str:
    if row.largest == plan.model.n_ctx_train:
        return f"{row.largest} (all)"
    return str(row.largest) if row.largest else NOTHING


def advice(plan: MemoryPlan) -> list[str]:
    """What to type: the least compressed cache that fits each context; without a budget every cache, at the largest."""
    rows = [row for row in plan.rows if not row.refused]
    if not rows or not plan.model.kv.caches:
        return []
    if plan.budget is None:
        return ["\n  ".join(["to serve it:", *(plan.command(row, row.sizes[-1].ctx) for row in rows)])]
    found = [_for_context(plan, rows, number) for number in range(len(rows[0].sizes))]
    longest = max(rows, key=lambda row: (row.largest or 0, row.bits))
    if longest.largest and not any(row.sizes[-1].fits for row in rows):
        command = plan.command(longest, longest.largest)
        found.append(f"the largest context that fits: {longest.largest} with {longest.pair.short}\n  {command}")
    return found


def _for_context(plan: MemoryPlan, rows: Sequence[MemoryRow], number: int) -> str:
    ctx = rows[0].sizes[number].ctx
    fitting = [row for row in rows if row.sizes[number].fits]
    if not fitting:
        return f"nothing fits the budget at {ctx} tokens"
    best = max(fitting, key=lambda row: row.bits)
    return f"the least compressed that fits at {ctx} tokens: {best.pair.short}\n  {plan.command(best, ctx)}"


def size(count: int) -> str:
    """Bytes in MiB as llama.cpp prints them, in GiB from ten of those on."""
    return f"{count / GIB:.2f} GiB" if abs(count) >= 10 * GIB else f"{count / MIB:.2f} MiB"
