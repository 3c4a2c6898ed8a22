"""The truth table of the upstream rotation's gate: seen in the log, and in logits that change or stay as they must."""

from __future__ import annotations

from turbotool.kv.cachetype import F16, CachePair
from turbotool.kv.rotation import BOTH, K_OVERRIDE, OFF, V_OVERRIDE, Knobs
from turbotool.programs.perplexity import Text, save_logits
from turbotool.system.digest import sha256_file
from turbotool.verify.check import CheckOutcome, Context
from turbotool.verify.checks.startup import invalid_knob_refused

CTX = 64  # a few dozen positions show whether the computation changed, to the last bit that the base file keeps
LOCKED = tuple(Knobs(disable=True, k=k, v=v) for k, v in ((False, False), (True, False), (False, True), (True, True)))
ROWS = (OFF, Knobs(k=True), Knobs(v=True), BOTH)
PROVEN = (
    "log and logits agree with the table; an override on f16 stays off and changes nothing; one side does not leak to "
    "the other; a wrong value is refused."
)


def truth_table(context: Context) -> CheckOutcome:
    """Five rows, both guards, and refused values. `cached` runs already compare each log with the table.

    Every override must change the logits of OFF, and differently from the other override: a side that leaks into the
    other, or a knob that only changes the log, shows. Every locked-out row must give exactly OFF's logits.
    """
    pairs = (
        [CachePair("q8_0", "q8_0")] if context.quick else [CachePair(name, name) for name in ("q8_0", "q4_0", "turbo4")]
    )
    faults: list[str] = []
    for pair in pairs:
        faults += _rows(context, pair)
    faults += _guards(context)
    for variable, value in ((K_OVERRIDE, "maybe"), (V_OVERRIDE, "1x")):
        faults += filter(None, [invalid_knob_refused(context, variable, value)])
    detail = "; ".join(faults) or f"{', '.join(map(str, pairs))}: {PROVEN} The head size guard: head-size-guard."
    return CheckOutcome(not faults, len(faults), "= 0 faults", detail)


def _logits(context: Context, pair: CachePair, knobs: Knobs) -> str:
    """sha256 of the log probabilities (16 bits each) that a configuration gives."""
    target = context.work / "row.logits"
    try:
        save_logits(context.runner, context.model, Text(context.text.path, ctx=CTX, chunks=1), pair, target, knobs)
        return sha256_file(target)
    finally:
        target.unlink(missing_ok=True)


def _rows(context: Context, pair: CachePair) -> list[str]:
    rows = {knobs: _logits(context, pair, knobs) for knobs in ROWS}
    faults = [
        f"{pair}: rotation {a} and {b} give the same logits"
        for i, a in enumerate(ROWS)
        for b in ROWS[i + 1 :]
        if rows[a] == rows[b]
    ]
    locked = LOCKED[1:2] + LOCKED[-1:] if context.quick else LOCKED
    faults += [f"{pair}: {knobs} changes the logits" for knobs in locked if _logits(context, pair, knobs) != rows[OFF]]
    return faults


def _guards(context: Context) -> list[str]:
    """A float cache ignores its override: on both sides, and on the float side of a mixed pair."""
    faults = []
    if _logits(context, F16, BOTH) != _logits(context, F16, OFF):
        faults.append("an override changes the logits of an f16 cache")
    if not context.quick:
        mixed = CachePair("q8_0", "f16")
        if _logits(context, mixed, Knobs(v=True)) != _logits(context, mixed, OFF):
            faults.append("a V override changes the logits although V is f16")
        if _logits(context, mixed, Knobs(k=True)) == _logits(context, mixed, OFF):
            faults.append("a K override does nothing when V is f16")
    return faults
