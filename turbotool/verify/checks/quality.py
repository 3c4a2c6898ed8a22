"""Answers to factual prompts, and KL divergence from an f16 cache inside bounds.

The yardstick is upstream's q4_0 with its rotation on both sides (4.5 bits per value), measured in the same run on the
same text, so that the relative bounds hold for any model. Absolute bounds are for the default model and text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from turbotool.kv.cachetype import F16, CachePair
from turbotool.kv.calibration import AUTO, UNCALIBRATED
from turbotool.kv.rotation import BOTH, OFF, Knobs
from turbotool.programs.completion import chat
from turbotool.programs.perplexity import NOISE_MAX, most_noise
from turbotool.programs.questions import PROMPTS
from turbotool.verify.check import CheckOutcome, Context

TURBO4 = CachePair("turbo4", "turbo4")
YARDSTICK = CachePair("q4_0", "q4_0")


def generation(pair: CachePair) -> Callable[[Context], CheckOutcome]:
    """llama-cli answers three factual prompts, greedily."""

    def check(context: Context) -> CheckOutcome:
        answers = [(prompt, chat(context.runner, context.model, pair, prompt).text, right) for prompt, right in PROMPTS]
        right_ones = sum(right(answer) for _, answer, right in answers)
        detail = " | ".join(" ".join(answer.split())[:60] for _, answer, _ in answers)
        return CheckOutcome(right_ones == len(PROMPTS), right_ones, f"= {len(PROMPTS)} right answers", detail)

    return check


def noise_floor(context: Context) -> CheckOutcome:
    """f16 against itself: nothing but the 16-bit storage of the base differs."""
    found = context.divergence(F16)
    most = most_noise(context.runner.binaries.backend)
    ok = abs(found.mean.value) <= most and found.maximum <= NOISE_MAX
    return CheckOutcome(
        ok,
        found.mean.value,
        f"|mean| <= {most:.3g}, max <= {NOISE_MAX:g}",
        f"max {found.maximum:.6f}, same top {found.same_top.value:.2f}%",
    )


@dataclass(frozen=True)
class Bound:
    """Mean KLD (nats): (low, high] times the yardstick's, and at most `absolute` on the default model and text."""

    low: float
    high: float
    absolute: float


# Measured on the default text, four chunks, x86-64: q8_0 .0045, turbo4 .0310, turbo3 .1356, turbo2 .7934, q8_0/turbo4
# .0085, q4_0 with rotation .0385. On the first chunk alone all of them are lower.
BOUNDS = {
    "q8_0": (CachePair("q8_0", "q8_0"), Bound(0.005, 0.5, 0.02)),
    "turbo4": (TURBO4, Bound(0.1, 0.95, 0.055)),
    "turbo3": (CachePair("turbo3", "turbo3"), Bound(1.0, 4.5, 0.23)),
    "turbo2": (CachePair("turbo2", "turbo2"), Bound(3.0, 24.0, 1.4)),
    "q8_0-turbo4": (CachePair("q8_0", "turbo4"), Bound(0.02, 0.5, 0.013)),
}


def kld(name: str) -> Callable[[Context], CheckOutcome]:
    """Mean KLD of a cache type inside its bounds; the lower one catches a type silently replaced by a better one."""

    def check(context: Context) -> CheckOutcome:
        pair, bound = BOUNDS[name]
        yardstick = context.divergence(YARDSTICK, BOTH).mean.value
        high = min(bound.high * yardstick, bound.absolute) if context.is_default else bound.high * yardstick
        return _inside(context, pair, OFF, bound.low * yardstick, high, yardstick)

    return check


def kld_q4_0(context: Context) -> CheckOutcome:
    """The yardstick itself: q4_0 with the rotation on both sides; in a full run it must also be better than without."""
    high = 0.086 if context.is_default else 1.0
    outcome = _inside(context, YARDSTICK, BOTH, 0.001, high, None)
    if context.quick:
        return outcome
    plain = context.divergence(YARDSTICK, OFF).mean.value
    value = context.divergence(YARDSTICK, BOTH).mean.value
    ok = outcome.ok and value < plain
    return CheckOutcome(ok, outcome.value, f"{outcome.bound}, < unrotated", f"{outcome.detail}; unrotated {plain:.6f}")


# Measured on the default text, x86-64: .42 over one chunk and over four. A calibration that does nothing gives 1.
CALIBRATED_RATIO = 0.62


def calibrated(context: Context) -> CheckOutcome:
    """A calibrated turbo4 cache loses less than the same cache without, on the same text in the same run."""
    bound = f"<= {CALIBRATED_RATIO:g} times the uncalibrated"
    plain, found = (context.divergence(TURBO4, OFF, calibration).mean for calibration in (UNCALIBRATED, AUTO))
    detail = f"{found.value:.6f} +-{found.error:.6f}, uncalibrated {plain.value:.6f} +-{plain.error:.6f}"
    if not context.is_default:
        return CheckOutcome(found.value < plain.value, found.value / plain.value, "< 1 times the uncalibrated", detail)
    ratio = found.value / plain.value
    return CheckOutcome(0 < ratio <= CALIBRATED_RATIO, ratio, bound, detail)


def _inside(
    context: Context, pair: CachePair, knobs: Knobs, low: float, high: float, yardstick: float | None
) -> CheckOutcome:
    found = context.divergence(pair, knobs)
    value = found.mean.value
    facts = [f"{value / yardstick:.2f}x of q4_0 rotated ({yardstick:.6f})"] if yardstick else []
    facts += [f"+-{found.mean.error:.6f}", f"PPL {found.ppl.value:.3f} (f16 {found.ppl_base.value:.3f})"]
    facts += [f"same top {found.same_top.value:.2f}%", f"99.9% {found.p999:.4f}"]
    return CheckOutcome(low < value <= high, value, f"({low:.4f}, {high:.4f}]", ", ".join(facts))
