"""The cache as a thing that moves: its size, slot save and restore, sequence copy."""

from __future__ import annotations

from turbotool.kv.cachetype import BLOCKS, CachePair
from turbotool.kv.size import expected_mib
from turbotool.programs.completion import complete
from turbotool.programs.server import Continuation, Server, serve
from turbotool.verify.check import CheckOutcome, Context

SIZE_CTX = 2048
PASSAGE = "The history of the city begins with a small harbour on the northern coast. In the early years"
CONTINUED = 24
COPIES = 2


def kv_buffer_size(context: Context) -> CheckOutcome:
    """KV buffers take exactly the bits per value of their type: nothing is padded at a head size that blocks divide."""
    names = ("f16", "turbo4", "turbo3", "turbo2") if context.quick else tuple(BLOCKS)
    found, faults = {}, []
    for name in names:
        pair = CachePair(name, name)
        run = complete(context.runner, context.model, pair, "x", n=1, ctx=SIZE_CTX).run
        wanted = expected_mib(context.model.kv, pair, run.effective.caches)
        if wanted is None:
            reason = context.model.kv.problem or f"{context.model.arch}: the log names other caches than the model has"
            return CheckOutcome(False, None, "exact", reason, skipped=bool(context.model.kv.problem))
        found[name] = sum(mib for _, mib in run.effective.buffers)
        total = sum(wanted)
        # both are printed with two decimals, each cache by itself
        if abs(found[name] - total) > 0.006 * max(1, len(wanted)):
            faults.append(f"{name} takes {found[name]:.2f} MiB, {total:.2f} expected")
    detail = "; ".join(faults) or "MiB at -c 2048: " + ", ".join(f"{name} {mib:.2f}" for name, mib in found.items())
    return CheckOutcome(not faults, found.get("turbo4"), "bits per value x elements, for each type", detail)


def slot_save_restore(context: Context) -> CheckOutcome:
    """A slot saved, overwritten and restored continues exactly as before: same tokens, same log probabilities."""
    faults = []
    for pair in _turbo_pairs(context):
        with serve(context.runner, context.model, pair, name="slots") as server:
            faults += [f"{pair}: {fault}" for fault in _save_restore(server)]
    return CheckOutcome(
        not faults,
        len(faults),
        "= 0 differences",
        "; ".join(faults) or f"{CONTINUED} tokens, K {', '.join(pair.k for pair in _turbo_pairs(context))}",
    )


def _save_restore(server: Server) -> list[str]:
    server.complete(PASSAGE, slot=0, n=0)
    saved = server.slot(0, "save", "passage.bin")
    before = server.complete(PASSAGE, slot=0, n=CONTINUED)
    server.slot(0, "erase")
    server.complete("Something else altogether, about bread and salt.", slot=0, n=8)
    restored = server.slot(0, "restore", "passage.bin")
    after = server.complete(PASSAGE, slot=0, n=CONTINUED)
    faults = []
    if not saved.get("n_saved") or saved.get("n_saved") != restored.get("n_restored"):
        faults.append(f"saved {saved.get('n_saved')} tokens, restored {restored.get('n_restored')}")
    if after.cached < int(saved.get("n_saved") or 0) - 1 or after.cached < 1:
        faults.append(f"only {after.cached} of {saved.get('n_saved')} restored tokens were used")
    return faults + _compare(before, after)


def _compare(one: Continuation, other: Continuation) -> list[str]:
    if len(one.tokens) != CONTINUED:
        return [f"{len(one.tokens)} tokens instead of {CONTINUED}"]
    for position, (a, b) in enumerate(zip(one.tokens, other.tokens, strict=False)):
        if a != b:
            return [f"token {position + 1} is {b}, was {a}"]
    return [] if len(one.tokens) == len(other.tokens) else [f"{len(other.tokens)} tokens, were {len(one.tokens)}"]


def sequence_copy(context: Context) -> CheckOutcome:
    """One prompt, two completions: llama-server copies the sequence to the second slot, and both go on alike."""
    faults = []
    for pair in _turbo_pairs(context):
        with serve(context.runner, context.model, pair, name="copy") as server:
            alone = server.complete(PASSAGE, slot=0, n=CONTINUED)
            server.slot(0, "erase")
            made = server.complete_many(PASSAGE, copies=COPIES, n=CONTINUED)
            copied = "copying state to child" in server.log.read_text(encoding="utf-8", errors="replace")
            if not copied or len({item.slot for item in made}) != COPIES:
                faults.append(f"{pair}: the sequence was not copied")
            for item in made:
                faults += [f"{pair} slot {item.slot}: {fault}" for fault in _compare_ids(alone, item)]
            faults += [f"{pair} copy: {fault}" for fault in _compare(made[0], made[-1])]
    return CheckOutcome(
        not faults,
        len(faults),
        "= 0 differences",
        "; ".join(faults) or f"{CONTINUED} tokens in 2 slots, K {', '.join(pair.k for pair in _turbo_pairs(context))}",
    )


def _compare_ids(one: Continuation, other: Continuation) -> list[str]:
    """One batch for two slots may round differently from one slot alone: the first tokens must agree, not every bit."""
    first = [(a[0], b[0]) for a, b in zip(one.tokens[:8], other.tokens[:8], strict=False)]
    return [f"token {i + 1} is {b}, alone {a}" for i, (a, b) in enumerate(first) if a != b][:1]


def _turbo_pairs(context: Context) -> list[CachePair]:
    names = ("turbo4",) if context.quick else ("turbo4", "turbo3", "turbo2")
    return [CachePair(name, name) for name in names]
