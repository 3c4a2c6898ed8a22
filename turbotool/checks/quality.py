"""Answers to factual prompts, and KL divergence from an f16 cache inside bounds.

The yardstick is upstream's q4_0 with its rotation on both sides (4.5 bits per value), measured in the same run on the
same text, so that the relative bounds hold for any model. Absolute bounds are for the default model and text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from turbotool.cachetype import CachePair
from turbotool.checks.core import F16, Context, Outcome
from turbotool.generate import chat
from turbotool.rotation import BOTH, OFF, Knobs

WARM = ("red", "orange", "yellow", "pink", "brown", "gold", "magenta")
COLD = ("green", "blue", "purple", "violet", "indigo", "cyan", "teal", "silver", "white", "black", "gray", "grey")
COLOURS = frozenset((*WARM, *COLD))
COLOURS_ASKED = 3
YARDSTICK = CachePair("q4_0", "q4_0")
# llama-perplexity stores base log probabilities in 16 bits, so that f16 differs from itself by about 1e-6 on average
# and 6e-5 at most (measured: 0.000000 and 0.000053); a real difference is a thousand times larger.
NOISE_MEAN = 5e-6
# A device may multiply in f16, which leaves logits on a grid of 1/64 or so. Rounding them to the base's steps is not
# random: a token is off by up to half a step (measured on llvmpipe: -2.0e-5 on average, with f32 products 1e-6).
NOISE_MEAN_DEVICE = 16 / 65535 / 2
NOISE_MAX = 5e-4


def is_paris(answer: str) -> bool:
    return "paris" in answer.lower()


def is_four(answer: str) -> bool:
    return bool(re.search(r"\bfour\b|\b4\b", answer.lower()))


def has_three_colours(answer: str) -> bool:
    return len(COLOURS & set(re.findall(r"[a-z]+", answer.lower()))) >= COLOURS_ASKED


PROMPTS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("The capital of France is", is_paris),
    ("Two plus two equals", is_four),
    ("List three colors:", has_three_colours),
)


def generation(pair: CachePair) -> Callable[[Context], Outcome]:
    """llama-cli answers three factual prompts, greedily."""

    def check(context: Context) -> Outcome:
        answers = [(prompt, chat(context.runner, context.model, pair, prompt).text, right) for prompt, right in PROMPTS]
        right_ones = sum(right(answer) for _, answer, right in answers)
        detail = " | ".join(" ".join(answer.split())[:60] for _, answer, _ in answers)
        return Outcome(right_ones == len(PROMPTS), right_ones, f"= {len(PROMPTS)} right answers", detail)

    return check


def most_noise(backend: str) -> float:
    """The mean KLD (nats) of an f16 cache against itself that the storage of the base explains."""
    return NOISE_MEAN if backend == "cpu" else NOISE_MEAN_DEVICE


def noise_floor(context: Context) -> Outcome:
    """f16 against itself: nothing but the 16-bit storage of the base differs."""
    found = context.divergence(F16)
    most = most_noise(context.runner.binaries.backend)
    ok = abs(found.mean.value) <= most and found.maximum <= NOISE_MAX
    return Outcome(
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


BOUNDS = {
    "q8_0": (CachePair("q8_0", "q8_0"), Bound(0.005, 0.5, 0.02)),
    "turbo4": (CachePair("turbo4", "turbo4"), Bound(0.1, 0.95, 0.06)),
    "turbo3": (CachePair("turbo3", "turbo3"), Bound(1.0, 4.5, 0.25)),
    "turbo2": (CachePair("turbo2", "turbo2"), Bound(3.0, 24.0, 1.4)),
    "q8_0-turbo4": (CachePair("q8_0", "turbo4"), Bound(0.02, 0.5, 0.013)),
}


def kld(name: str) -> Callable[[Context], Outcome]:
    """Mean KLD of a cache type inside its bounds; the lower one catches a type silently replaced by a better one."""

    def check(context: Context) -> Outcome:
        pair, bound = BOUNDS[name]
        yardstick = context.divergence(YARDSTICK, BOTH).mean.value
        high = min(bound.high * yardstick, bound.absolute) if context.is_default else bound.high * yardstick
        return _inside(context, pair, OFF, bound.low * yardstick, high, yardstick)

    return check


def kld_q4_0(context: Context) -> Outcome:
    """The yardstick itself: q4_0 with the rotation on both sides; in a full run it must also be better than without."""
    high = 0.09 if context.is_default else 1.0
    outcome = _inside(context, YARDSTICK, BOTH, 0.001, high, None)
    if context.quick:
        return outcome
    plain = context.divergence(YARDSTICK, OFF).mean.value
    value = context.divergence(YARDSTICK, BOTH).mean.value
    ok = outcome.ok and value < plain
    return Outcome(ok, outcome.value, f"{outcome.bound}, < unrotated", f"{outcome.detail}; unrotated {plain:.6f}")


def _inside(
    context: Context, pair: CachePair, knobs: Knobs, low: float, high: float, yardstick: float | None
) -> Outcome:
    found = context.divergence(pair, knobs)
    value = found.mean.value
    facts = [f"{value / yardstick:.2f}x of q4_0 rotated ({yardstick:.6f})"] if yardstick else []
    facts += [f"+-{found.mean.error:.6f}", f"PPL {found.ppl.value:.3f} (f16 {found.ppl_base.value:.3f})"]
    facts += [f"same top {found.same_top.value:.2f}%", f"99.9% {found.p999:.4f}"]
    return Outcome(low < value <= high, value, f"({low:.4f}, {high:.4f}]", ", ".join(facts))
