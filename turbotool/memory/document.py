"""A memory plan as JSON."""

from __future__ import annotations

from turbotool.memory.plan import MemoryPlan, MemoryRow


def document(plan: MemoryPlan) -> dict[str, object]:
    """The plan as JSON; sizes in bytes, contexts in tokens."""
    model, budget = plan.model, plan.budget
    return {
        "ok": True,
        "model": model.path.name,
        "architecture": model.arch,
        "trained_ctx": model.n_ctx_train,
        "caches": [
            {"layers": len(cache.k), "window": cache.window, "k_values": sum(cache.k), "v_values": sum(cache.v)}
            for cache in model.kv.caches
        ],
        "recurrent_layers": model.kv.recurrent_layers,
        "state_bytes": plan.states,
        "sequences": plan.serving.sequences,
        "shared": plan.serving.shared,
        "budget": budget
        and {
            "total_bytes": budget.total,
            "model_bytes": budget.model,
            "reserve_bytes": budget.reserve,
            "left_bytes": budget.left,
        },
        "rows": [_row_document(plan, row) for row in plan.rows],
    }


def _row_document(plan: MemoryPlan, row: MemoryRow) -> dict[str, object]:
    named: dict[str, object] = {"k": row.pair.k, "v": row.pair.v}
    if row.refused:
        return {**named, "refused": row.refused}
    sizes = [
        {"ctx": size.ctx, "kv_bytes": size.kv, "fits": size.fits, "command": plan.command(row, size.ctx)}
        for size in row.sizes
    ]
    return {
        **named,
        "refused": None,
        "bits_per_value": row.bits,
        "sizes": sizes,
        "largest_ctx": row.largest,
        "largest_command": plan.command(row, row.largest) if row.largest else None,
    }
