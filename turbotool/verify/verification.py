"""Runs the checks one after the other; a check that fails, in whatever way, never keeps the others from running."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

from turbotool.errors import BinaryFailed, Busy, Interrupted, NoSpace, TurbotoolError, UsageMistake
from turbotool.system.names import did_you_mean
from turbotool.verify.check import Check, CheckOutcome, Context, Spec
from turbotool.verify.registry import CHECKS

DETAIL_CHARACTERS = 2000


@dataclass(frozen=True)
class Verification:
    """All checks of one run, in order."""

    checks: tuple[Check, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        return (
            bool(self.checks)
            and all(check.ok for check in self.checks if not check.skipped)
            and any(check.ok for check in self.checks)
        )

    @property
    def failed(self) -> tuple[str, ...]:
        return tuple(check.name for check in self.checks if not check.ok and not check.skipped)


def select(names: Sequence[str], quick: bool) -> tuple[Spec, ...]:
    """The checks to run: those named, or all, or the quick ones. Raises UsageMistake for an unknown name."""
    known = {spec.name: spec for spec in CHECKS}
    for name in names:
        if name not in known:
            raise UsageMistake(f"there is no check '{name}'{did_you_mean(name, known)}", hint="turbotool verify --list")
    if names:
        return tuple(spec for spec in CHECKS if spec.name in names)
    return tuple(spec for spec in CHECKS if spec.quick or not quick)


def verify(context: Context, specs: Sequence[Spec]) -> Verification:
    """Run the checks in order and report each as it ends."""
    started = time.monotonic()
    checks: list[Check] = []
    try:
        with context.out.progress("verify") as step:
            for number, spec in enumerate(specs):
                step(number, len(specs), spec.name)
                checks.append(run_check(spec, context))
                context.out.detail(line_of(checks[-1]))
            step(len(specs), len(specs), "done")
    finally:
        context.cleanup()
    return Verification(tuple(checks), time.monotonic() - started)


def run_check(spec: Spec, context: Context) -> Check:
    """One check. A crash, a timeout or a refused configuration fails it; only Ctrl-C and a full disk end the run."""
    started = time.monotonic()
    try:
        outcome = spec.run(context)
    except (Interrupted, NoSpace, Busy):
        raise
    except TurbotoolError as error:
        value = error.how if isinstance(error, BinaryFailed) else type(error).__name__
        outcome = CheckOutcome(False, value, "runs to its end", error.message[:DETAIL_CHARACTERS])
    except Exception as error:  # a defect of a check must not hide what the others say
        outcome = CheckOutcome(False, type(error).__name__, "runs to its end", f"{error}"[:DETAIL_CHARACTERS])
        if context.out.verbose:
            context.out.warn(traceback.format_exc())
    seconds = time.monotonic() - started
    return Check(spec.name, seconds=seconds, **vars(outcome))


def line_of(check: Check) -> str:
    state = "skip" if check.skipped else "ok" if check.ok else "FAIL"
    value = f"{check.value:.6g}" if isinstance(check.value, float) else str(check.value)
    return f"{state:4}  {check.name:24} {value:>24}  {check.bound:44}  {check.seconds:6.1f} s"


def summary(verification: Verification) -> str:
    """One line on a verification that holds."""
    skipped = sum(check.skipped for check in verification.checks)
    told = f", {skipped} skipped" if skipped else ""
    return f"verified: {len(verification.checks) - skipped} checks passed{told} in {verification.seconds:.0f} s"


def table(verification: Verification) -> str:
    """The checks as lines for people; a failed or skipped one is followed by its detail, any by what it left out."""
    lines = [f"{'':4}  {'check':24} {'value':>24}  {'bound':44}  {'time':>8}"]
    for check in verification.checks:
        lines.append(line_of(check))
        if (not check.ok or check.skipped) and check.detail:
            lines += [f"      | {line}" for line in check.detail.splitlines()[:12]]
        if check.left_out:
            lines.append(f"      | left out: {check.left_out}")
    return "\n".join(lines)
