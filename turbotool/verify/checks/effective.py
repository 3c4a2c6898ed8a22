"""What ran is what was asked for, in every run with a cache that this verification made."""

from __future__ import annotations

from turbotool.kv.cachetype import F16, CachePair
from turbotool.kv.calibration import AUTO, UNCALIBRATED, Calibration
from turbotool.kv.effective import differences
from turbotool.kv.rotation import OFF, Knobs
from turbotool.programs.completion import complete
from turbotool.verify.check import CheckOutcome, Context


def effective_configuration(context: Context) -> CheckOutcome:
    """Requested = effective for all runs so far, and the comparison itself refuses wrong types and wrong rotation."""
    wanted = CachePair("q8_0", "turbo4")
    sample = complete(context.runner, context.model, wanted, "x", n=1, ctx=256).run
    runs = context.runner.runs
    faults = [
        f"{run.name} {run.pair}: {found[0]}"
        for run in runs
        if (found := differences(run.pair, run.knobs, context.model, run.effective, run.calibration))
    ]
    wrong: tuple[tuple[CachePair, Knobs, Calibration], ...] = (
        (F16, OFF, UNCALIBRATED),
        (CachePair("q8_0", "turbo3"), OFF, UNCALIBRATED),
        (wanted, Knobs(k=True), UNCALIBRATED),
        (wanted, OFF, AUTO),
    )
    for pair, knobs, calibration in wrong:
        if not differences(pair, knobs, context.model, sample.effective, calibration):
            faults.append(f"a {wanted} run passes for {pair} with rotation {knobs} and calibration {calibration}")
    return CheckOutcome(
        not faults,
        len(runs),
        "runs, each as requested",
        "; ".join(faults[:5]) or f"{len(wrong)} wrong requests were refused",
    )
